package protocols

import (
	"fmt"
)

// Dispatcher hands messages to handlers by their type. Register all handlers
// before the first Dispatch; after that it may be used by several goroutines.
type Dispatcher struct {
	handlers map[MessageType]func(any) error
	// Unknown is asked about a message that no handler is registered for; nil
	// refuses it with ErrUnexpected.
	Unknown func(t MessageType) error
}

// NewDispatcher makes one without handlers.
func NewDispatcher() *Dispatcher {
	return &Dispatcher{handlers: map[MessageType]func(any) error{}}
}

// On registers the handler of messages of type M, a pointer such as
// *replication.WalPush or *Hello, in place of an earlier one. It panics if M is
// no message: that is a mistake in the program.
func On[M any](d *Dispatcher, handle func(M) error) {
	var m M
	t := TypeOf(m)
	if t == 0 {
		panic(fmt.Sprintf("protocols.On: %T is no message", m))
	}
	d.handlers[t] = func(v any) error { return handle(v.(M)) }
}

// Dispatch decodes a frame and hands its message to the handler. The error is
// Decode's, Unknown's or the handler's.
func (d *Dispatcher) Dispatch(f *Frame) error {
	if _, known := limitOf(f.Type); !known && d.Unknown != nil {
		return d.Unknown(f.Type)
	}
	m, err := Decode(f)
	if err != nil {
		return err
	}
	return d.Handle(m)
}

// Handle hands a decoded message to its handler.
func (d *Dispatcher) Handle(m any) error {
	t := TypeOf(m)
	if h, ok := d.handlers[t]; ok {
		return h(m)
	}
	if d.Unknown != nil {
		return d.Unknown(t)
	}
	return faultf(ErrUnexpected, t, "nothing here takes it")
}
