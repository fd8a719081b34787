package bench

import (
	"context"
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wcharczuk/go-chart/v2"
	"github.com/wcharczuk/go-chart/v2/drawing"

	"vixp2p/internal/rawdisk"
	"vixp2p/replication"
)

// point is what was measured at a place of the horizontal axis.
type point struct{ x, y float64 }

// curve is one line of a plot.
type curve struct {
	name   string
	points []point
	filled bool
}

// plot is one picture. Both axes are logarithmic, base 2 and 10, unless even, which
// makes the vertical one linear.
type plot struct {
	file, title, x, y string
	xText             func(float64) string
	even              bool
	curves            []curve
}

// plots measures over sizes, writers and peers, and draws that and the latencies.
func (s *stage) plots(ctx context.Context, dir string) error {
	for i, draw := range []func(context.Context, *scene) (plot, error){plotSizes, plotWriters, plotPeers, plotLatency} {
		work := filepath.Join(s.dir, fmt.Sprintf("plot-%d", i))
		if err := os.Mkdir(work, 0o700); err != nil {
			return err
		}
		p, err := draw(ctx, &scene{stage: s, dir: work})
		if err = errors.Join(err, os.RemoveAll(work)); err != nil {
			return stopped(ctx, "what is to be drawn", err)
		}
		if err := p.save(dir); err != nil {
			return fmt.Errorf("cannot write the plot %s: %w", p.file, err)
		}
	}
	return nil
}

// plotSizes: payload per second against the size of operations.
func plotSizes(ctx context.Context, s *scene) (plot, error) {
	p := plot{file: "size.svg", title: "Throughput against the size of operations", x: "payload of an operation", y: "payload, MB/s",
		xText: func(x float64) string { return strings.Replace(replication.SizeText(uint64(x)), ".0 ", " ", 1) }}
	raw := curve{name: "append + fsync to a file, 1 writer"}
	durable := curve{name: "durable append, 64 writers"}
	caught := curve{name: "catch-up over TCP, in batches"}
	for size := 16; size <= 256<<10; size *= 4 {
		mb := func(ops float64) point { return point{float64(size), ops * float64(size) / 1e6} }
		rate, durableRate, err := s.appendBeside(ctx, 64, size)
		if err != nil {
			return p, err
		}
		raw.points, durable.points = append(raw.points, mb(rate)), append(durable.points, mb(durableRate))
		perBlock := min(1000, replication.MaxRawBody*3/4/size)
		blocks := max(2, pick(s.stage, 64<<20, 8<<20)/size/perBlock)
		w := workload{fmt.Sprintf("size-%d", size), min(blocks, 200) * perBlock, perBlock, size}
		took, err := s.spread(ctx, w, 1)
		if err = errors.Join(err, s.drop(w)); err != nil {
			return p, err
		}
		caught.points = append(caught.points, mb(float64(w.ops)/took.Seconds()))
	}
	p.curves = []curve{caught, durable, raw}
	return p, nil
}

// plotWriters: operations per second against concurrent writers.
func plotWriters(ctx context.Context, s *scene) (plot, error) {
	p := plot{file: "writers.svg", title: "Durable appends of 256 B against writers", x: "concurrent writers", y: "operations per second", xText: whole}
	raw, durable := curve{name: "append + fsync to a file, 1 writer"}, curve{name: "durable append"}
	for writers := 1; writers <= 512; writers *= 2 {
		rate, durableRate, err := s.appendBeside(ctx, writers, payloadBytes)
		if err != nil {
			return p, err
		}
		raw.points, durable.points = append(raw.points, point{float64(writers), rate}), append(durable.points, point{float64(writers), durableRate})
	}
	p.curves = []curve{durable, raw}
	return p, nil
}

// appendBeside is raw appends and durable appends of so many writers per second,
// each the median of three turns.
func (s *scene) appendBeside(ctx context.Context, writers, size int) (raw, durable float64, err error) {
	dir, err := s.sub()
	if err != nil {
		return 0, 0, err
	}
	file, err := rawdisk.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	n, err := openNode(ctx, filepath.Join(dir, "node"), offline)
	if err != nil {
		return 0, 0, errors.Join(err, file.Close())
	}
	perWriter := max(pick(s.stage, 300, 50)/writers, pick(s.stage, 20, 3))
	turns, err := byTurns(ctx, 3, rawRate(file, size, pick(s.stage, 200, 50)), appends(n.Space("default"), writers, perWriter, size))
	if err == nil {
		r := row{limit: rawFsync}.result(turns, Result{})
		raw, durable = r.LimitValue, r.Value
	}
	return raw, durable, errors.Join(err, n.Close(), file.Close(), os.RemoveAll(dir))
}

// plotPeers: operations per second that members receive that catch up at the same
// time from one.
func plotPeers(ctx context.Context, s *scene) (plot, error) {
	p := plot{file: "peers.svg", title: "Catch-up of several members from one, 256 B in batches", x: "members that catch up at once", y: "operations per second", xText: whole}
	each, all := curve{name: "each of them"}, curve{name: "all together"}
	w := workload{"peers", pick(s.stage, 200_000, 20_000), 1000, payloadBytes}
	for peers := 1; peers <= 8; peers *= 2 {
		took, err := s.spread(ctx, w, peers)
		if err != nil {
			return p, err
		}
		rate := float64(w.ops) / took.Seconds()
		each.points, all.points = append(each.points, point{float64(peers), rate}), append(all.points, point{float64(peers), rate * float64(peers)})
	}
	p.curves = []curve{all, each}
	return p, nil
}

// spread is how long so many members, all at once, take to catch up with a
// workload.
func (s *scene) spread(ctx context.Context, w workload, peers int) (took time.Duration, err error) {
	sources, dirs := make([]*source, 0, peers), make([]string, peers)
	defer func() {
		for _, src := range slices.Backward(sources) {
			err = errors.Join(err, src.close())
		}
	}()
	for i := range peers {
		var src *source
		if i == 0 {
			src, _, err = s.openSource(ctx, w)
		} else { // the same member over a link of its own
			src = &source{member: sources[0].member, w: w, shared: true}
			src.link, err = openLink(ctx, "tcp")
		}
		if err != nil {
			return 0, err
		}
		sources = append(sources, src)
		if dirs[i], err = s.sub(); err != nil {
			return 0, err
		}
	}
	type caught struct {
		took time.Duration
		err  error
	}
	done := make(chan caught, peers)
	for i, src := range sources {
		go func() {
			took, err := src.catchUp(ctx, dirs[i])
			done <- caught{took, err}
		}()
	}
	for range peers {
		c := <-done
		took, err = max(took, c.took), errors.Join(err, c.err)
	}
	return took, err
}

// plotLatency: how the latencies of one writer spread.
func plotLatency(ctx context.Context, s *scene) (plot, error) {
	p := plot{file: "latency.svg", title: "From append until durable on both members, one writer", x: "microseconds", y: "part of the appends, %", xText: whole, even: true}
	if len(s.latencies) == 0 {
		if _, err := measureLive(ctx, s); err != nil {
			return p, err
		}
	}
	p.curves = []curve{{"appends of 256 B", histogram(s.latencies), true}}
	return p, nil
}

// bucketsPerDouble is how many bars of a histogram cover a doubling.
const bucketsPerDouble = 8

// histogram has the outline of bars over logarithmic buckets, in percent.
func histogram(took []time.Duration) []point {
	counts := map[int]int{}
	bucket := func(d time.Duration) int {
		return int(math.Floor(math.Log2(max(microseconds(d), 1)) * bucketsPerDouble))
	}
	for _, d := range took {
		counts[bucket(d)]++
	}
	var out []point
	for b := bucket(slices.Min(took)); b <= bucket(slices.Max(took)); b++ {
		y := 100 * float64(counts[b]) / float64(len(took))
		edge := func(b int) float64 { return math.Exp2(float64(b) / bucketsPerDouble) }
		out = append(out, point{edge(b), y}, point{edge(b + 1), y})
	}
	return out
}

func whole(x float64) string { return fmt.Sprintf("%.0f", x) }

// Colours that also those tell apart who see no red or green.
var colours = []drawing.Color{{R: 0, G: 90, B: 181, A: 255}, {R: 220, G: 50, B: 32, A: 255}, {R: 90, G: 90, B: 90, A: 255}}

// save draws a plot. The library puts texts into the file as they are.
func (p plot) save(dir string) error {
	low, high := point{math.Inf(1), math.Inf(1)}, point{math.Inf(-1), math.Inf(-1)}
	var lines []chart.Series
	for i, c := range p.curves {
		line := chart.ContinuousSeries{YAxis: chart.YAxisSecondary, // at the left
			Style: chart.Style{StrokeColor: colours[i], StrokeWidth: 2, DotColor: colours[i], DotWidth: 3}}
		if c.filled {
			line.Style.FillColor, line.Style.DotWidth = colours[i].WithAlpha(80), 0
		}
		for _, at := range c.points {
			x, y := math.Log2(at.x), p.height(at.y)
			line.XValues, line.YValues = append(line.XValues, x), append(line.YValues, y)
			low, high = point{min(low.x, x), min(low.y, y)}, point{max(high.x, x), max(high.y, y)}
		}
		lines = append(lines, line)
	}
	ticks := p.yTicks(low.y, high.y)
	grid := chart.Style{StrokeColor: drawing.Color{R: 220, G: 220, B: 220, A: 255}, StrokeWidth: 1}
	c := chart.Chart{
		Width: 820, Height: 440, Series: lines,
		Background:     chart.Style{Padding: chart.Box{Top: 75, Left: 20, Right: 30, Bottom: 20}},
		XAxis:          chart.XAxis{Name: html.EscapeString(p.x), Ticks: p.xTicks(low.x, high.x)},
		YAxis:          chart.YAxis{Style: chart.Hidden(), Ticks: ticks}, // the library takes the other's range from here
		YAxisSecondary: chart.YAxis{Name: html.EscapeString(p.y), Ticks: ticks, GridMajorStyle: grid, GridMinorStyle: grid},
	}
	c.Elements = []chart.Renderable{p.drawHead}
	f, err := os.Create(filepath.Join(dir, p.file))
	if err != nil {
		return err
	}
	return errors.Join(c.Render(chart.SVG, f), f.Close())
}

// drawHead writes the title, and below it the name of each curve beside its colour.
// The library's own legend gets into the way of its own title.
func (p plot) drawHead(r chart.Renderer, box chart.Box, defaults chart.Style) {
	text := func(s string, x, y int, size float64) {
		chart.Draw.Text(r, html.EscapeString(s), x, y, chart.Style{FontSize: size, FontColor: chart.ColorBlack}.InheritFrom(defaults))
	}
	text(p.title, box.Left, 28, 12)
	for i, c := range p.curves {
		x := box.Left + i*250
		r.SetStrokeColor(colours[i])
		r.SetStrokeWidth(3)
		r.MoveTo(x, 48)
		r.LineTo(x+20, 48)
		r.Stroke()
		text(c.name, x+26, 52, 9)
	}
}

// height is where a value stands on the vertical axis.
func (p plot) height(v float64) float64 {
	if p.even {
		return v
	}
	return math.Log10(v)
}

// xTicks are powers of two around the values, every second one where there are
// many. The axis goes from the first to the last.
func (p plot) xTicks(low, high float64) (ticks []chart.Tick) {
	low, high = math.Floor(low), math.Ceil(high)
	step := 1.0
	if high-low > 12 {
		step = 2
	}
	for v := low; v < high+step; v += step {
		ticks = append(ticks, chart.Tick{Value: v, Label: p.xText(math.Exp2(v))})
	}
	return ticks
}

// yTicks are powers of ten around the values, or about ten even steps from zero.
func (p plot) yTicks(low, high float64) (ticks []chart.Tick) {
	step := math.Max(1, math.Ceil(high/10))
	if p.even {
		low = 0
	} else {
		low, step = math.Floor(low), 1
	}
	for v := low; v < high+step; v += step {
		label := v
		if !p.even {
			label = math.Pow(10, v)
		}
		ticks = append(ticks, chart.Tick{Value: v, Label: strconv.FormatFloat(label, 'f', -1, 64)})
	}
	return ticks
}
