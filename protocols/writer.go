package protocols

import (
	"bufio"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// Writer writes frames to one stream. Small frames gather in a buffer until
// Flush; a large attachment goes to the stream as it is, without a copy. It is
// not safe for concurrent use.
type Writer struct {
	w   io.Writer
	bw  *bufio.Writer
	id  uint64 // of the last frame
	err error  // first failure of w: the stream may end inside a frame, nothing more is written
}

// NewWriter writes to w. Write deadlines are its caller's business.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, bw: bufio.NewWriterSize(w, writeBuffer)}
}

// WriteFrame queues one frame of this version and numbers it. A frame beyond
// its type's limits is refused with a *ProtocolError before a byte is written;
// after any other error the stream is of no further use.
func (w *Writer) WriteFrame(f *Frame) error {
	f.Major, f.Minor, f.ID = VersionMajor, VersionMinor, w.id+1
	envelope, err := encodeEnvelope(f)
	if err != nil {
		return err
	}
	row, known := limitOf(f.Type)
	switch {
	case !known:
		return faultf(ErrUnknownType, f.Type, "it cannot be sent")
	case len(envelope) > max(row.Hello, row.Session):
		return faultf(ErrOversize, f.Type, "an envelope of %d bytes, more than %d", len(envelope), max(row.Hello, row.Session))
	case len(f.Attachment) > row.Attachment:
		return faultf(ErrOversize, f.Type, "an attachment of %d bytes, more than %d", len(f.Attachment), row.Attachment)
	}
	w.id++
	f.envelope = envelope
	if w.err == nil {
		w.err = w.write(appendFrameHead(nil, envelope, len(f.Attachment)), f.Attachment)
	}
	return w.err
}

func (w *Writer) write(head, attachment []byte) error {
	if _, err := w.bw.Write(head); err != nil {
		return err
	}
	if len(attachment) < directWrite {
		_, err := w.bw.Write(attachment)
		return err
	}
	if err := w.bw.Flush(); err != nil {
		return err
	}
	_, err := w.w.Write(attachment)
	return err
}

// Flush sends what is queued.
func (w *Writer) Flush() error {
	if w.err == nil {
		w.err = w.bw.Flush()
	}
	return w.err
}

// appendFrameHead appends all of a frame but its attachment.
func appendFrameHead(dst, envelope []byte, attachment int) []byte {
	n := protowire.SizeBytes(len(envelope)) + attachment
	dst = protowire.AppendVarint(dst, uint64(n))
	return protowire.AppendBytes(dst, envelope)
}
