package localapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Code is a stable word for what kind of failure an [Error] is. The list only
// grows.
type Code string

const (
	CodeUsage        Code = "usage"          // the request itself is wrong: exit code 2
	CodeInvalidJSON  Code = "invalid_json"   // a body or line that is not what it should be
	CodeUnauthorized Code = "unauthorized"   // no token, or not this node's
	CodeNotFound     Code = "not_found"      // no such key, peer or route
	CodeTooLarge     Code = "too_large"      // beyond a limit of the store or of the API
	CodeConflict     Code = "conflict"       // a condition no longer holds, or what is there is in the way
	CodeTimeout      Code = "timeout"        // what was waited for did not come in time
	CodeReplicas     Code = "not_replicated" // durable here, not yet at as many members as asked for
	CodeUndelivered  Code = "not_delivered"  // a message is durable here, and its recipient has not acknowledged it
	CodeUnreachable  Code = "unreachable"    // a peer that does not answer, or refuses
	CodeNoNode       Code = "no_node"        // needs a running node
	CodeReset        Code = "cursor_reset"   // a cursor of another history
	CodeNoSpace      Code = "no_space"       // the disk is full
	CodeDamaged      Code = "damaged"        // stored data is not what was written
	CodeLocked       Code = "locked"         // another process has the directory
	CodeTooNew       Code = "too_new"        // made by a newer version
	CodeNotAllowed   Code = "not_allowed"    // this node may not do that
	CodeOtherNetwork Code = "other_network"  // the data directory belongs to another network
	CodeTicket       Code = "ticket"         // a ticket or certificate that cannot be used
	CodeClosed       Code = "closed"         // the node is stopping
	CodeBusy         Code = "busy"           // too many requests at once
	CodeCancelled    Code = "cancelled"      // the caller gave up
	CodeInternal     Code = "internal"       // anything else
)

// statusOf is the HTTP status of each code; those not named are 500.
var statusOf = map[Code]int{
	CodeUsage:        http.StatusBadRequest,
	CodeInvalidJSON:  http.StatusBadRequest,
	CodeUnauthorized: http.StatusUnauthorized,
	CodeNotFound:     http.StatusNotFound,
	CodeTooLarge:     http.StatusRequestEntityTooLarge,
	CodeConflict:     http.StatusConflict,
	CodeTimeout:      http.StatusRequestTimeout,
	CodeReplicas:     http.StatusGatewayTimeout,
	CodeUndelivered:  http.StatusGatewayTimeout,
	CodeUnreachable:  http.StatusBadGateway,
	CodeNoNode:       http.StatusServiceUnavailable,
	CodeReset:        http.StatusGone,
	CodeNoSpace:      http.StatusInsufficientStorage,
	CodeLocked:       http.StatusLocked,
	CodeNotAllowed:   http.StatusForbidden,
	CodeOtherNetwork: http.StatusConflict,
	CodeTicket:       http.StatusForbidden,
	CodeClosed:       http.StatusServiceUnavailable,
	CodeBusy:         http.StatusTooManyRequests,
	CodeCancelled:    499, // as other servers report a client that went away
}

// Error is a failure as the local API tells it.
type Error struct {
	// Message is one sentence: what was wrong and what to do.
	Message string `json:"error"`
	Code    Code   `json:"code"`
	// Written is set when a write is durable here although the request failed
	// (CodeReplicas).
	Written *Written `json:"written,omitempty"`
	// Sent is set when a message is durable here and not delivered yet
	// (CodeUndelivered).
	Sent *Sent `json:"sent,omitempty"`
	// Cause is what it came from, on the side where it happened.
	Cause error `json:"-"`
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Cause }

// Is matches another *Error of the same code, so that errors.Is(err,
// &Error{Code: c}) asks for a code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errorf makes an Error with a code.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Message: err.Error(), Code: code, Cause: errors.Unwrap(err)}
}

// CodeOf is the code of an error that may or may not be an [Error].
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return CodeTimeout
	case errors.Is(err, context.Canceled):
		return CodeCancelled
	}
	return CodeInternal
}

// ErrTimeUp is the cause of a context whose time, which a person or script gave,
// is over. It matches context.DeadlineExceeded.
var ErrTimeUp error = timeUp{}

type timeUp struct{}

func (timeUp) Error() string        { return "the time is up" }
func (timeUp) Is(target error) bool { return target == context.DeadlineExceeded }

// asError gives any error the form in which it is sent.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		if err.Error() == e.Message {
			return e
		}
		return &Error{Message: err.Error(), Code: e.Code, Written: e.Written, Sent: e.Sent, Cause: err}
	}
	return &Error{Message: err.Error(), Code: CodeOf(err), Cause: err}
}

func (e *Error) status() int {
	if s, ok := statusOf[e.Code]; ok {
		return s
	}
	return http.StatusInternalServerError
}
