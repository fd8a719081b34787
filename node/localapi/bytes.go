package localapi

import (
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"
)

// Bytes in JSON: a text member when they are valid UTF-8, else the same name
// with "_base64" (standard alphabet, padded). Each of the four types below is
// embedded where its member stands.

// Key is a key of the key-value view, or of an application's operation.
type Key struct {
	Text   *string `json:"key,omitempty"`
	Base64 []byte  `json:"key_base64,omitempty"`
}

// Value is a stored value.
type Value struct {
	Text   *string `json:"value,omitempty"`
	Base64 []byte  `json:"value_base64,omitempty"`
}

// Payload is what an operation carries.
type Payload struct {
	Text   *string `json:"payload,omitempty"`
	Base64 []byte  `json:"payload_base64,omitempty"`
}

// Kind is the kind of an operation. What this node writes has a text; another
// member may name its kind with any bytes.
type Kind struct {
	Text   *string `json:"kind,omitempty"`
	Base64 []byte  `json:"kind_base64,omitempty"`
}

// KeyOf, ValueOf, PayloadOf and KindOf give bytes their JSON form.
func KeyOf(b []byte) Key         { t, raw := split(b); return Key{t, raw} }
func ValueOf(b []byte) Value     { t, raw := split(b); return Value{t, raw} }
func PayloadOf(b []byte) Payload { t, raw := split(b); return Payload{t, raw} }
func KindOf(b []byte) Kind       { t, raw := split(b); return Kind{t, raw} }

// Bytes of the member that is there; nil if neither is.
func (k Key) Bytes() []byte     { return join(k.Text, k.Base64) }
func (v Value) Bytes() []byte   { return join(v.Text, v.Base64) }
func (p Payload) Bytes() []byte { return join(p.Text, p.Base64) }
func (k Kind) Bytes() []byte    { return join(k.Text, k.Base64) }

// String is for people: text as it is, other bytes in base64.
func (k Key) String() string     { return display(k.Text, k.Base64) }
func (v Value) String() string   { return display(v.Text, v.Base64) }
func (p Payload) String() string { return display(p.Text, p.Base64) }
func (k Kind) String() string    { return display(k.Text, k.Base64) }

func split(b []byte) (*string, []byte) {
	if !utf8.Valid(b) {
		return nil, b
	}
	s := string(b)
	return &s, nil
}

func join(text *string, raw []byte) []byte {
	if text != nil {
		return []byte(*text)
	}
	return raw
}

func display(text *string, raw []byte) string {
	if text != nil {
		return *text
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// oneOf checks that exactly one of the two members is there.
func oneOf(name string, text *string, raw []byte) error {
	switch {
	case text == nil && raw == nil:
		return fmt.Errorf("there is no %q", name)
	case text != nil && raw != nil:
		return fmt.Errorf("there are both %q and %q", name, name+"_base64")
	}
	return nil
}

// timeFormat is RFC 3339 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Time is a moment in JSON: RFC 3339, UTC, milliseconds.
type Time struct{ time.Time }

func (t Time) String() string { return t.UTC().Format(timeFormat) }

// MarshalText gives the form of the contract; JSON uses it too.
func (t Time) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON overrides that of the embedded time.Time.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + t.String() + `"`), nil }
