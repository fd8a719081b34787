package protocols

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"reflect"
	"runtime"
	"testing"

	"vixp2p/replication"
)

// wire is the bytes of a frame.
func wire(t testing.TB, f Frame) []byte {
	t.Helper()
	env, err := encodeEnvelope(&f)
	if err != nil {
		t.Fatal(err)
	}
	return append(appendFrameHead(nil, env, len(f.Attachment)), f.Attachment...)
}

// readAll reads frames until an error and copies what matters of each.
func readAll(r *Reader) (types []MessageType, err error) {
	for {
		f, err := r.Next()
		if err != nil {
			return types, err
		}
		types = append(types, f.Type)
		r.release(len(f.Attachment))
	}
}

func TestFramesRoundTrip(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	var want []any
	for range 3 { // the reader's buffer begins at another place each time
		for _, s := range samples() {
			if l, _ := limitOf(TypeOf(s.msg)); l.Session == 0 {
				continue
			}
			f, err := Encode(s.msg)
			if err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if err := w.WriteFrame(f); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			want = append(want, s.msg)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&stream, newTestBudget(0))
	for i, m := range want {
		f, err := r.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if f.ID != uint64(i)+1 {
			t.Errorf("frame %d has number %d", i, f.ID)
		}
		got, err := Decode(f)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("frame %d: got %+v, want %+v", i, got, m)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestReaderFaults(t *testing.T) {
	ping := wire(t, Frame{Major: 1, Type: TypePing})
	env := ping[2:]
	push := wire(t, Frame{Major: 1, Type: TypeWalPush, Attachment: []byte("data")})
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"only a length", []byte{5}, ErrTruncated},
		{"half a length", []byte{0x80}, ErrTruncated},
		{"half an envelope", ping[:len(ping)-1], ErrTruncated},
		{"half an attachment", push[:len(push)-1], ErrTruncated},
		{"length 0", []byte{0}, ErrTruncated},
		{"length 0, then a frame", append([]byte{0}, ping...), ErrEnvelope},
		{"envelope length 0", []byte{1, 0}, ErrEnvelope},
		{"envelope longer than the frame", []byte{2, 9, 8}, ErrEnvelope},
		{"length not minimal", append([]byte{ping[0] | 0x80, 0}, ping[1:]...), ErrVarint},
		{"envelope length not minimal", append([]byte{ping[0] + 1, ping[1] | 0x80, 0}, env...), ErrVarint},
		{"length beyond 64 bits", append(bytes.Repeat([]byte{0xff}, 9), 2), ErrVarint},
		{"length beyond 64 bits, endless", bytes.Repeat([]byte{0xff}, 99), ErrVarint},
		{"4 GiB", []byte{0x80, 0x80, 0x80, 0x80, 0x10, 1}, ErrOversize},
		{"one more than any frame", append(appendFrameHead(nil, make([]byte, MaxEnvelope), maxAttachment+9), 0), ErrOversize},
		{"an envelope beyond any", appendFrameHead(nil, make([]byte, MaxEnvelope+1), 0), ErrOversize},
		{"a ping of 300 bytes", wire(t, Frame{Major: 1, Type: TypePing, Message: make([]byte, 300)}), ErrOversize},
		{"a push beyond a run", wire(t, Frame{Major: 1, Type: TypeWalPush, Attachment: make([]byte, replication.MaxRunBytes+1)}), ErrOversize},
		{"a byte after a ping", append([]byte{ping[0] + 1}, append(ping[1:len(ping):len(ping)], 0)...), ErrTrailing},
		{"a handshake message in a session", wire(t, Frame{Major: 1, Type: TypeHello}), ErrUnexpected},
		{"other major", wire(t, Frame{Major: 2, Type: TypePing}), ErrOtherMajor},
		{"no major", wire(t, Frame{Type: TypePing}), ErrOtherMajor},
		{"no type", wire(t, Frame{Major: 1}), ErrEnvelope},
		{"unknown type", wire(t, Frame{Major: 1, Type: 99}), ErrUnknownType},
		{"encrypted", wire(t, Frame{Major: 1, Minor: 9, Type: TypePing, Flags: FlagEncrypted}), ErrEnvelope},
		{"compressed", wire(t, Frame{Major: 1, Minor: 9, Type: TypePing, Flags: FlagCompressed}), ErrEnvelope},
		{"unknown flag", wire(t, Frame{Major: 1, Type: TypePing, Flags: 8}), ErrEnvelope},
		{"an error code in a ping", wire(t, Frame{Major: 1, Type: TypePing, Code: 3}), ErrEnvelope},
		{"no protobuf", []byte{3, 2, 0xff, 0xff}, ErrEnvelope},
		{"unknown envelope field", append([]byte{ping[0] + 3, ping[1] + 3}, append(env[:len(env):len(env)], 0xa0, 6, 1)...), ErrEnvelope},
	} {
		t.Run(c.name, func(t *testing.T) {
			budget := newTestBudget(0)
			_, err := readAll(NewReader(bytes.NewReader(c.in), budget))
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if errors.Is(err, ErrProtocol) && CodeOf(err) != replication.CodeProtocol {
				t.Errorf("code %v", CodeOf(err))
			}
			if budget.Used() != 0 {
				t.Errorf("%d bytes still reserved", budget.Used())
			}
		})
	}
}

// Design 7.5: what a newer minor version adds is skipped.
func TestReaderSkipsWhatIsNewer(t *testing.T) {
	newer := func(f Frame) []byte { f.Major, f.Minor = VersionMajor, VersionMinor+1; return wire(t, f) }
	var in []byte
	in = append(in, newer(Frame{Type: 99, Message: []byte("x"), Attachment: make([]byte, 1<<20)})...)
	in = append(in, newer(Frame{Type: TypePing, Flags: 1 << 9})...)
	in = append(in, newer(Frame{Type: 100})...)
	in = append(in, newer(Frame{Type: TypePong, Message: []byte{8, 1, 0xa0, 6, 1}})...) // an unknown field
	budget := newTestBudget(1)                                                          // what is skipped takes no memory
	r := NewReader(bytes.NewReader(in), budget)
	for _, want := range []MessageType{TypePing, TypePong} {
		f, err := r.Next()
		if err != nil || f.Type != want {
			t.Fatalf("got %+v, %v, want %v", f, err, want)
		}
		if _, err := Decode(f); err != nil {
			t.Errorf("%v: %v", want, err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// A length announced is not memory taken: nothing is allocated beyond the
// limits, and no attachment before its type is known.
func TestReaderAllocatesNothingForAnnouncements(t *testing.T) {
	// The least of a few tries: what other goroutines allocate is counted too.
	allocated := func(in []byte) uint64 {
		least := uint64(math.MaxUint64)
		for range 5 {
			r := NewReader(bytes.NewReader(in), nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := r.Next()
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("no error")
			}
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		return least
	}
	const noise = 8 << 10 // error values
	for name, in := range map[string][]byte{
		"4 GiB frame":                 {0x80, 0x80, 0x80, 0x80, 0x10, 1, 2, 3},
		"2^63 byte frame":             append(bytes.Repeat([]byte{0x80}, 9), 1),
		"16 KiB envelope":             {0x83, 0x80, 1, 0x80, 0x80, 1, 8, 1},
		"ping with 1.75 MiB":          wire(t, Frame{Major: 1, Type: TypePing, Attachment: make([]byte, maxAttachment)}),
		"push with one byte too much": wire(t, Frame{Major: 1, Type: TypeWalPush, Attachment: make([]byte, maxAttachment+1)}),
		"unknown type":                wire(t, Frame{Major: 1, Type: 99, Attachment: make([]byte, maxAttachment)}),
	} {
		if n := allocated(in); n > noise {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
}

// A flood of tiny frames takes no memory that stays, and each is read at the
// reader's pace.
func TestReaderBearsTinyFrames(t *testing.T) {
	const frames = 200_000
	ping := wire(t, Frame{Major: 1, Type: TypePing, ID: 1})
	skipped := wire(t, Frame{Major: 1, Minor: 1, Type: 99})
	flood := bufio.NewReader(&repeated{b: append(ping[:len(ping):len(ping)], skipped...), n: frames})
	r := NewReader(flood, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	types, err := 0, error(nil)
	for {
		var f *Frame
		if f, err = r.Next(); err != nil {
			break
		}
		if f.Type == TypePing {
			types++
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.EOF) || types != frames {
		t.Errorf("%d frames, then %v", types, err)
	}
	if after.HeapAlloc > before.HeapAlloc+1<<20 {
		t.Errorf("%d bytes kept", after.HeapAlloc-before.HeapAlloc)
	}
}

// repeated gives b n times.
type repeated struct {
	b  []byte
	n  int
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b[r.at:])
	if r.at += n; r.at == len(r.b) {
		r.at = 0
		r.n--
	}
	return n, nil
}

// An attachment reaches the stream as it is, in one write after its head, and
// small frames wait for Flush.
func TestWriterPolicy(t *testing.T) {
	var s writes
	w := NewWriter(&s)
	for range 3 {
		if err := w.WriteFrame(&Frame{Type: TypePing}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s) != 0 {
		t.Fatalf("%d writes before Flush", len(s))
	}
	data := make([]byte, 1<<20)
	if err := w.WriteFrame(&Frame{Type: TypeWalPush, Attachment: data}); err != nil {
		t.Fatal(err)
	}
	if len(s) != 2 || &s[1][0] != &data[0] || len(s[1]) != len(data) {
		t.Errorf("%d writes, or the attachment was copied", len(s))
	}
}

type writes [][]byte

func (w *writes) Write(b []byte) (int, error) {
	*w = append(*w, b)
	return len(b), nil
}

func TestWriterRefusesBeyondLimits(t *testing.T) {
	var s writes
	w := NewWriter(&s)
	for _, f := range []*Frame{
		{Type: TypePing, Message: make([]byte, 300)},
		{Type: TypePing, Attachment: []byte{1}},
		{Type: TypeWalPush, Attachment: make([]byte, replication.MaxRunBytes+1)},
		{Type: 99},
		{Type: 1 << 31},
	} {
		if err := w.WriteFrame(f); !errors.Is(err, ErrProtocol) {
			t.Errorf("type %v: %v", f.Type, err)
		}
	}
	if err := w.Flush(); err != nil || len(s) != 0 {
		t.Errorf("%v, %d writes", err, len(s))
	}
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

// After a failure nothing more is written: it would land inside a frame.
func TestWriterStaysBroken(t *testing.T) {
	w := NewWriter(broken{})
	if err := w.WriteFrame(&Frame{Type: TypeWalPush, Attachment: make([]byte, directWrite)}); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	var s writes
	w.w = &s
	w.bw.Reset(&s)
	if err := w.WriteFrame(&Frame{Type: TypePing}); !errors.Is(err, errBroken) || !errors.Is(w.Flush(), errBroken) || len(s) > 0 {
		t.Errorf("got %v, %d writes", err, len(s))
	}
}

func BenchmarkFramePush(b *testing.B) {
	f, err := Encode(&replication.WalPush{
		Space: replication.SpaceID{1}, Log: sampleLog(1), End: samplePos(1, 1),
		Total: replication.MaxRunBytes, Data: make([]byte, replication.MaxRunBytes),
	})
	if err != nil {
		b.Fatal(err)
	}
	one := wire(b, *f)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	r := NewReader(&repeated{b: one, n: math.MaxInt}, nil)
	for b.Loop() {
		f, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(f); err != nil {
			b.Fatal(err)
		}
	}
}
