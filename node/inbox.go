package node

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"vixp2p/node/mailbox"
)

// Message is a message to this node.
type Message struct {
	Cursor Cursor // resume after this message
	ID     string // 32 hex digits, the sender's choice
	From   string // peer ID; proven by a signature
	Time   time.Time
	Body   []byte
}

// messagePage is how many messages are read at once.
const messagePage = 64

// Messages ranges over the messages to this node that are kept, in the order in
// which they arrived, after a cursor ("" or Start: from the first, Now: those that
// come from now on), and with follow over those that come, until ctx ends, which is
// no error. An error comes last, with a zero Message: ErrCursorReset if the cursor
// is of another history.
//
// A message that was ranged over counts as read: it is kept until there is no room
// for a new one. One that was not read is never dropped: when the inbox is full of
// these (10,000, or 64 MiB; a quarter of it of one sender) new ones wait at the
// members that carry them. One that is damaged on the disk is left out; the log and
// Status tell.
func (n *Node) Messages(ctx context.Context, from Cursor, follow bool) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		err := n.eachMessage(ctx, from, follow, yield)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errStopped) {
			yield(Message{}, err)
		}
	}
}

func (n *Node) eachMessage(ctx context.Context, from Cursor, follow bool, yield func(Message, error) bool) error {
	if n.mesh == nil {
		return ErrOffline
	}
	if n.messages == nil {
		return ErrNoMessages
	}
	at, history := uint64(0), ""
	for first := true; ; first = false {
		c, err := n.messages.use(ctx)
		if err != nil {
			return err
		}
		if first {
			if at, err = startOf(c.box, from); err != nil {
				return err
			}
		} else if c.box.ID() != history {
			return ErrCursorReset // it was lost while this went on
		}
		history = c.box.ID()
		err = n.readMessages(ctx, c, &at, follow, yield)
		if err == nil || !errors.Is(err, errReopened) {
			return err
		}
	}
}

// startOf is the arrival after which a cursor goes on.
func startOf(box *mailbox.Box, from Cursor) (uint64, error) {
	switch from {
	case "", Start:
		return 0, nil
	case Now:
		return box.Last(), nil
	}
	history, number, ok := strings.Cut(strings.TrimPrefix(string(from), messageCursor), "-")
	at, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || !strings.HasPrefix(string(from), messageCursor) {
		return 0, fmt.Errorf("%q is no cursor of messages: use one that messages gave, or none: %w", from, ErrInvalid)
	}
	if history != box.ID() {
		return 0, ErrCursorReset
	}
	return at, nil
}

// messageCursor begins the text of a cursor: "msg-HISTORY-ARRIVAL".
const messageCursor = "msg-"

// errReopened: the mailbox was closed, and may be opened again.
var errReopened = errors.New("the mailbox was closed")

// readMessages reads one open mailbox; errReopened if it was closed under it.
func (n *Node) readMessages(ctx context.Context, c *courier, at *uint64, follow bool, yield func(Message, error) bool) error {
	for {
		changed := c.box.Changed() // before looking
		page, err := c.box.Inbox(*at, messagePage)
		if err != nil && len(page) == 0 {
			if c.brokenBox() {
				select {
				case <-c.done:
					return errReopened
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return err
		}
		for i := range page {
			e := &page[i]
			if ctx.Err() != nil {
				return ctx.Err()
			}
			more := yield(Message{
				Cursor: Cursor(messageCursor + c.box.ID() + "-" + strconv.FormatUint(e.Arrival, 10)),
				ID:     e.ID.String(), From: originName(replicationKey(e.From)), Time: e.Created, Body: e.Text,
			}, nil)
			*at = e.Arrival
			if !more {
				c.markRead(*at)
				return errStopped
			}
		}
		if len(page) > 0 {
			c.markRead(*at)
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-changed:
		case <-c.done:
			return errReopened
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// markRead notes how far the inbox was read. If that fails messages are only kept
// for longer.
func (c *courier) markRead(at uint64) {
	if err := c.box.MarkRead(at); err != nil {
		c.m.log.Warn("it is not noted that messages were read", "err", err)
		c.brokenBox()
	}
}

// brokenBox tells whether the mailbox is of no further use; run ends then, so that
// it is opened again.
func (c *courier) brokenBox() bool {
	if c.box.Broken() == nil {
		return false
	}
	c.call(func(c *courier) { c.broken = c.box.Broken() })
	return true
}
