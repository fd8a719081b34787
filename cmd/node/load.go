package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"vixp2p/node/localapi"
)

func (p *program) loadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "load FILE|-",
		Short: "Load many keys from a file of JSON lines",
		Long: `Load lines {"key":...,"value":...} from a file, packed with gzip or not, or from
standard input (-). A string is stored as its bytes, any other JSON value as its
text without white space; bytes that are no text go as value_base64.
A line that is not right stops it and is named; what came before it stays.
With --json it prints {"acked":n} whenever the first n records are durable.`,
		Example: `  vix-node load --id A packages.jsonl.gz
  producer | vix-node load --id A - --json`,
		Args: exactly(1, "a file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, total, err := p.input(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return p.with(cmd, needStore, p.timeLimit(0), func(ctx context.Context, b localapi.Backend) error {
				return p.load(ctx, b, in, total)
			})
		},
	}
}

// input opens a file to load; size is -1 where it is not known.
func (p *program) input(name string) (in io.ReadCloser, size int64, err error) {
	if name == "-" {
		return io.NopCloser(p.stdin), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, 0, fmt.Errorf("cannot open %s: %w", name, err)
	}
	size = -1
	if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
		size = fi.Size()
	} else if err == nil && fi.IsDir() {
		_ = f.Close()
		return nil, 0, fmt.Errorf("cannot load %s: it is a directory, and load takes a file", name)
	}
	return f, size, nil
}

// load commits in as it comes. The reading goroutine may still wait for standard
// input when it returns; it ends with the process.
func (p *program) load(ctx context.Context, b localapi.Backend, in io.Reader, total int64) error {
	read := &countingReader{r: in}
	bar := p.progressBar(total)
	note := ""
	l := localapi.NewLoader(read, func(ctx context.Context, ops []localapi.Op) error {
		written, err := b.Write(ctx, p.flags.space, localapi.Write{Ops: ops})
		note = cmp.Or(written.Note, note)
		return err
	})
	done, err := l.Run(ctx, func(d localapi.Loaded) error {
		if p.flags.json {
			return p.print(localapi.Acked{N: d.Records})
		}
		if bar != nil {
			bar.Describe(many(d.Records, "record", "records"))
			return bar.Set64(read.n.Load())
		}
		return nil
	})
	if bar != nil {
		_ = bar.Clear()
	}
	p.note(note)
	if err != nil {
		if isEnding(err) && ctx.Err() != nil {
			return localapi.Errorf(localapi.CodeCancelled, "stopped (%w): %s: go on after %s, or load all again if nobody else writes these keys, whose edits that would replace",
				context.Cause(ctx), many(done.Records, "record is stored and stays", "records are stored and stay"), map[bool]string{true: "it", false: "them"}[done.Records == 1])
		}
		return err
	}
	if p.flags.json {
		return p.print(done)
	}
	fmt.Fprintf(p.stdout, "%s, %s, in %s\n", many(done.Records, "record", "records"), size(done.Bytes), brief(time.Duration(done.Seconds*float64(time.Second))))
	return nil
}

// progressBar is nil where no person would see it.
func (p *program) progressBar(total int64) *progressbar.ProgressBar {
	if p.flags.json || !p.terminal(p.stderr) {
		return nil
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.stderr),
		progressbar.OptionSetDescription("0 records"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionClearOnFinish(),
	)
}

// countingReader counts what was read, for the progress bar in another
// goroutine.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}
