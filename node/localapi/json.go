package localapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"vixp2p/replication"
)

// WriteJSON writes one object as one line, without escaping what only HTML
// would need escaped.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// opJSON is a line of a batch.
type opJSON struct {
	Op string `json:"op"`
	Key
	Value
	Kind string `json:"kind,omitempty"`
	Payload
}

func (o *Op) toJSON() opJSON {
	j := opJSON{Op: o.Op}
	switch o.Op {
	case OpPut:
		j.Key, j.Value = KeyOf(o.Key), ValueOf(o.Value)
	case OpDelete:
		j.Key = KeyOf(o.Key)
	case OpAppend:
		j.Kind, j.Payload = o.Kind, PayloadOf(o.Payload)
	}
	return j
}

func (j *opJSON) toOp() (Op, error) {
	op := Op{Op: j.Op, Key: j.Key.Bytes(), Value: j.Value.Bytes(), Kind: j.Kind, Payload: j.Payload.Bytes()}
	hasKey := oneOf("key", j.Key.Text, j.Key.Base64)
	hasValue := oneOf("value", j.Value.Text, j.Value.Base64)
	hasPayload := oneOf("payload", j.Payload.Text, j.Payload.Base64)
	switch j.Op {
	case OpPut:
		if hasKey != nil {
			return op, hasKey
		}
		if hasValue != nil {
			return op, hasValue
		}
	case OpDelete:
		if hasKey != nil {
			return op, hasKey
		}
	case OpAppend:
		if hasPayload != nil {
			return op, hasPayload
		}
	default:
		return op, fmt.Errorf("the operation %q is not %q, %q or %q", j.Op, OpPut, OpDelete, OpAppend)
	}
	return op, op.Check()
}

// Check says what is wrong with an operation before it goes anywhere. The size of
// a value is the store's to judge, but for what the API could not carry.
func (o *Op) Check() error {
	switch o.Op {
	case OpPut, OpDelete:
		if len(o.Key) == 0 {
			return Errorf(CodeUsage, "the key is empty: a key has at least one byte")
		}
		if len(o.Key) > replication.MaxKey {
			return Errorf(CodeTooLarge, "the key is %d bytes, more than the limit of %d: shorten it", len(o.Key), replication.MaxKey)
		}
	case OpAppend:
		switch o.Kind {
		case "":
			return Errorf(CodeUsage, "the kind is empty: say what the operation is, for example \"note\"")
		case KindPut, KindDelete:
			return Errorf(CodeUsage, "the kind %q is built in: use put and del for keys, or choose another kind", o.Kind)
		}
	}
	if n := max(len(o.Value), len(o.Payload)); n > MaxValue {
		return Errorf(CodeTooLarge, "the value is %d bytes, more than the limit of one value, %s", n, ValueLimit)
	}
	return nil
}

// ValueLimit ends a sentence about a value that is too large.
const ValueLimit = "about 1 MiB (1048576 bytes with its key and what is kept beside it): split it, or store it elsewhere and write a reference"

// maxBeside is more than what a block has beside one value: a key of
// replication.MaxKey bytes and the versions that a put replaces.
const maxBeside = 64 << 10

// TooLarge says in terms of the value, which a person knows, why the store refused
// a batch of this operation alone as too large; another refusal stays as it is.
func (o *Op) TooLarge(refused *Error) *Error {
	n := max(len(o.Value), len(o.Payload))
	if n <= MaxValue-maxBeside {
		return refused
	}
	return &Error{Code: CodeTooLarge, Cause: refused,
		Message: fmt.Sprintf("the value is %d bytes, more than the limit of one value, %s", n, ValueLimit)}
}

// decodeOps reads the lines of a batch.
func decodeOps(r io.Reader) ([]Op, error) {
	raw, err := readBody(r)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var ops []Op
	for {
		var j opJSON
		err := dec.Decode(&j)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, bodyError(fmt.Sprintf("operation %d", len(ops)+1), err)
		}
		op, err := j.toOp()
		if err != nil {
			code := CodeInvalidJSON
			if CodeOf(err) == CodeTooLarge {
				code = CodeTooLarge
			}
			return nil, Errorf(code, "operation %d: %w", len(ops)+1, err)
		}
		if len(ops) == maxBatchOps {
			return nil, Errorf(CodeTooLarge, "a batch has at most %d operations: split it", maxBatchOps)
		}
		ops = append(ops, op)
	}
	if len(ops) == 0 {
		return nil, Errorf(CodeInvalidJSON, "the batch is empty: send lines such as {\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}")
	}
	return ops, nil
}

func encodeOps(ops []Op) ([]byte, error) {
	var b bytes.Buffer
	for i := range ops {
		if err := WriteJSON(&b, ops[i].toJSON()); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// decodeObject reads a body that is one JSON object.
func decodeObject(r io.Reader, v any) error {
	raw, err := readBody(r)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return bodyError("the body", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Errorf(CodeInvalidJSON, "the body has more than one JSON object")
	}
	return nil
}

// readBody reads a whole body of JSON, which its reader bounds.
func readBody(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, bodyError("the body", err)
	}
	if err := checkText(raw); err != nil {
		return nil, Errorf(CodeInvalidJSON, "the body: %w", err)
	}
	return raw, nil
}
