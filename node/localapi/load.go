package localapi

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Limits of a bulk load.
const (
	loadBatchOps   = 2000      // operations of one commit
	loadBatchBytes = 512 << 10 // raw bytes of one commit, a single larger record excepted
	maxLoadLine    = 8 << 20   // bytes of one line
)

// Acked says that the first N records are durable.
type Acked struct {
	N uint64 `json:"acked"`
}

// Loaded is the result of a bulk load. Bytes are those of keys and values as
// stored.
type Loaded struct {
	Records uint64  `json:"records"`
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// LineError: a line of a bulk load that cannot be stored. The records before it
// are stored.
type LineError struct {
	Line  int // from 1
	Acked uint64
	Cause error
}

func (e *LineError) Error() string {
	switch e.Acked {
	case 0:
		return fmt.Sprintf("line %d: %v", e.Line, e.Cause)
	case 1:
		return fmt.Sprintf("line %d: %v (the record before it is stored)", e.Line, e.Cause)
	}
	return fmt.Sprintf("line %d: %v (the %d records before it are stored)", e.Line, e.Cause, e.Acked)
}
func (e *LineError) Unwrap() error { return e.Cause }

// Loader reads lines {"key","value"} and commits them in order. One goroutine
// reads and decodes while Run commits, so that each commit takes what has come
// together during the one before: a fast file gives large batches, and a slow
// producer waits for nobody.
type Loader struct {
	commit func(context.Context, []Op) error
	done   chan struct{} // closed when the reading goroutine has ended

	mu sync.Mutex // guards what follows; held for moments only
	// cond wakes the reader when the batch was taken, and Run when there is
	// something to take.
	cond    sync.Cond
	batch   loadBatch
	end     error // why reading ended, io.EOF at the end of the input
	stopped bool  // Run has returned: the reader gives up
}

type loadBatch struct {
	ops   []Op
	bytes int
	line  int // of the first operation
}

// NewLoader starts reading r, gzip or not. Run must follow. After Run has
// returned early the reading goroutine ends with the read that is under way;
// Wait waits for it.
func NewLoader(r io.Reader, commit func(context.Context, []Op) error) *Loader {
	l := &Loader{commit: commit, done: make(chan struct{})}
	l.cond.L = &l.mu
	go func() {
		defer close(l.done)
		err := l.read(r)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.end = err
		l.cond.Broadcast()
	}()
	return l
}

// Wait returns when the reading goroutine has ended. A read that blocks must be
// ended by closing what is read.
func (l *Loader) Wait() { <-l.done }

// Run commits until the input ends, and calls acked after each commit with what
// is durable by then. On an error the result says what was stored.
func (l *Loader) Run(ctx context.Context, acked func(Loaded) error) (res Loaded, err error) {
	start := time.Now()
	defer func() { res.Seconds = time.Since(start).Seconds() }()
	defer l.stop()
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.cond.Broadcast()
	})()
	for {
		batch, err := l.take(ctx)
		if errors.Is(err, io.EOF) {
			return res, nil
		}
		if line, ok := errors.AsType[*LineError](err); ok {
			line.Acked = res.Records
		}
		if err != nil {
			return res, err
		}
		if err := l.commit(ctx, batch.ops); err != nil {
			if len(batch.ops) == 1 && CodeOf(err) == CodeTooLarge {
				return res, &LineError{Line: batch.line, Acked: res.Records, Cause: err}
			}
			return res, afterError(res.Records, err)
		}
		res.Records += uint64(len(batch.ops))
		res.Bytes += uint64(batch.bytes)
		res.Seconds = time.Since(start).Seconds()
		if acked == nil {
			continue
		}
		if err := acked(res); err != nil {
			return res, err
		}
	}
}

// afterError tells how much is stored of a load that err ended.
func afterError(records uint64, err error) error {
	switch records {
	case 0:
		return err
	case 1:
		return fmt.Errorf("after 1 stored record: %w", err)
	}
	return fmt.Errorf("after %d stored records: %w", records, err)
}

func (l *Loader) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.cond.Broadcast()
}

// take waits for at least one operation and takes all that are there.
func (l *Loader) take(ctx context.Context) (loadBatch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.batch.ops) == 0 && l.end == nil && ctx.Err() == nil {
		l.cond.Wait()
	}
	if ctx.Err() != nil {
		return loadBatch{}, ctx.Err()
	}
	if len(l.batch.ops) == 0 {
		return loadBatch{}, l.end
	}
	b := l.batch
	l.batch = loadBatch{}
	l.cond.Broadcast()
	return b, nil
}

// put adds an operation to the batch, after waiting for room.
func (l *Loader) put(op Op, line int) bool {
	size := len(op.Key) + len(op.Value)
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.stopped && len(l.batch.ops) > 0 &&
		(len(l.batch.ops) >= loadBatchOps || l.batch.bytes+size > loadBatchBytes) {
		l.cond.Wait()
	}
	if l.stopped {
		return false
	}
	if len(l.batch.ops) == 0 {
		l.batch.line = line
		l.cond.Broadcast()
	}
	l.batch.ops = append(l.batch.ops, op)
	l.batch.bytes += size
	return true
}

// read is the reading goroutine: it returns io.EOF at the end of the input.
func (l *Loader) read(r io.Reader) error {
	in, err := plain(r)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		line, err := readLine(in)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return &LineError{Line: n, Cause: err}
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			op, err := parseLoadLine(line)
			if err != nil {
				return &LineError{Line: n, Cause: err}
			}
			if !l.put(op, n) {
				return io.EOF
			}
		}
		if last {
			return io.EOF
		}
	}
}

// plain unpacks gzip, which it knows by its first two bytes.
func plain(r io.Reader) (*bufio.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	magic, err := in.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read the input: %w", err)
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, readProblem(err)
	}
	return bufio.NewReaderSize(z, 64<<10), nil
}

// readLine returns a line without its end; with io.EOF the last one. The slice
// is valid until the next call.
func readLine(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	if err == nil || err == io.EOF {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = in.ReadSlice('\n')
		long = append(long, line...)
		if len(long) > maxLoadLine {
			return nil, Errorf(CodeTooLarge, "the line is longer than the limit of %d bytes", maxLoadLine)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, readProblem(err)
	}
	return long, err
}

// readProblem says what to do where the input cannot be read.
func readProblem(err error) error {
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the input ends in the middle of its gzip data (%w): get the whole file and load it again", err)
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, &corrupt):
		return fmt.Errorf("the gzip data of the input is damaged (%w): get the file again", err)
	}
	return fmt.Errorf("cannot read the input: %w", err)
}

// loadLine is one line of a bulk load. Members of other names are ignored, so
// that what `ls --json` prints can be loaded.
type loadLine struct {
	Key
	Value  json.RawMessage `json:"value"`
	Base64 *[]byte         `json:"value_base64"`
}

// parseLoadLine reads one line: a string value is stored as its bytes, any other
// as its text without insignificant white space.
func parseLoadLine(line []byte) (Op, error) {
	fail := func(err error) (Op, error) { return Op{}, Errorf(CodeInvalidJSON, "%w", err) }
	if err := checkText(line); err != nil {
		return fail(err)
	}
	var in loadLine
	if err := json.Unmarshal(line, &in); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return fail(fmt.Errorf("it is not an object with a text \"key\" and a \"value\""))
		}
		return fail(jsonError("it", err))
	}
	if err := oneOf("key", in.Key.Text, in.Key.Base64); err != nil {
		return fail(err)
	}
	op := Op{Op: OpPut, Key: in.Key.Bytes()}
	switch {
	case in.Base64 != nil && in.Value != nil:
		return fail(fmt.Errorf(`there are both "value" and "value_base64"`))
	case in.Base64 != nil:
		op.Value = *in.Base64
	case in.Value == nil:
		return fail(fmt.Errorf(`there is no "value"`))
	case in.Value[0] == '"':
		var s string
		if err := json.Unmarshal(in.Value, &s); err != nil {
			return fail(err)
		}
		op.Value = []byte(s)
	default:
		var b bytes.Buffer
		if err := json.Compact(&b, in.Value); err != nil {
			return fail(err)
		}
		op.Value = b.Bytes()
	}
	if err := op.Check(); err != nil {
		return Op{}, badLine(err)
	}
	return op, nil
}

// badLine makes an operation that cannot be stored a mistake in the input, which
// is none in how the command was used.
func badLine(err error) error {
	if CodeOf(err) == CodeUsage {
		return Errorf(CodeInvalidJSON, "%w", err)
	}
	return err
}
