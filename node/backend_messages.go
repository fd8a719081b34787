package node

import (
	"context"
	"errors"

	"vixp2p/node/localapi"
)

func (b backend) Send(ctx context.Context, m localapi.Send) (localapi.Sent, error) {
	if err := m.Check(); err != nil {
		return localapi.Sent{}, err
	}
	sent, err := b.n.Send(ctx, m.Peer, m.Text, SendOptions{TTL: m.TTL, Lifetime: m.Lifetime})
	if err != nil {
		return localapi.Sent{}, messageError(err)
	}
	out := localapi.Sent{ID: sent.ID(), To: sent.To(), Expires: localapi.Time{Time: sent.Expires()}}
	if m.Stored != nil {
		m.Stored(out)
	}
	if m.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, m.Timeout, localapi.ErrTimeUp)
		defer cancel()
	}
	if err := sent.Wait(ctx); err != nil {
		if errors.As(err, new(*UndeliveredError)) {
			return out, &localapi.Error{Code: localapi.CodeUndelivered, Message: err.Error(), Sent: &out, Cause: err}
		}
		return out, messageError(err)
	}
	out.Delivered = true
	return out, nil
}

func (b backend) Messages(ctx context.Context, in localapi.Inbox, emit func(localapi.Message) error) error {
	n := 0
	for m, err := range b.n.Messages(ctx, Cursor(in.From), in.Follow) {
		if err != nil {
			return messageError(err)
		}
		if err := emit(localapi.Message{
			ID: m.ID, From: m.From, Text: localapi.TextOf(m.Body), Time: localapi.Time{Time: m.Time}, Cursor: string(m.Cursor),
		}); err != nil {
			return err
		}
		if n++; n == in.Count {
			return nil
		}
	}
	if in.Follow {
		return context.Cause(ctx)
	}
	return nil
}

// messageError is apiError for what only messages meet.
func messageError(err error) error {
	switch {
	case errors.Is(err, ErrOutboxFull):
		return localapi.Errorf(localapi.CodeBusy, "%w", err)
	case errors.Is(err, ErrNoMessages):
		return localapi.Errorf(localapi.CodeNotAllowed, "%w", err)
	}
	return apiError(err)
}

func apiMessages(m *MessageStatus) *localapi.Messages {
	if m == nil {
		return nil
	}
	c := &m.Counters
	return &localapi.Messages{
		Inbox: m.Inbox, Unread: m.Unread, Outbox: m.Outbox, Transit: m.Transit, Replies: m.Replies, TransitBytes: m.TransitBytes,
		Sent: c.Sent, Delivered: c.Delivered, Received: c.Received, Forwarded: c.Forwarded, Expired: c.Expired, TTLUsedUp: c.Spent,
		Dropped: m.Dropped, Problem: m.Problem, Recovered: m.Recovered,
	}
}

func apiRoutes(list []Route) (out []localapi.Route) {
	for _, r := range list {
		out = append(out, localapi.Route{
			Target: r.Target, NextHop: r.NextHop, ViaRelay: r.ViaRelay, TTL: r.TTL, Source: r.Source, Hops: r.Hops, Expires: apiTime(r.Expires),
		})
	}
	return out
}
