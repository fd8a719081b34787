package bench

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each row has a name of its own, and each figure of a measurement a row.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range Names() {
		if seen[name] {
			t.Errorf("two rows are named %s", name)
		}
		seen[name] = true
	}
	if err := Check(Options{Only: []string{"append-1", "pipe"}}); err != nil {
		t.Error(err)
	}
	if err := Check(Options{Only: []string{"append-1", "bogus"}}); err == nil || !strings.Contains(err.Error(), `"bogus"`) {
		t.Errorf("a row that is not there: %v", err)
	}
}

// A ratio is that of each turn, not of the medians: limit and figure of one turn
// were measured beside each other.
func TestResult(t *testing.T) {
	turns := []turn{{100, 50}, {10, 8}, {1000, 600}}
	r := row{name: "r", limit: "l", goal: ratioOf(0.6)}.result(turns, Result{})
	if r.Value != 50 || r.Low != 8 || r.High != 600 || r.LimitValue != 100 || r.Ratio != 0.6 || r.RatioLow != 0.5 || r.RatioHigh != 0.8 || !*r.Reached {
		t.Errorf("%+v", r)
	}
	for _, c := range []struct {
		g       goal
		reached bool
	}{{ratioOf(0.61), false}, {ratioMost(0.6), true}, {ratioMost(0.5), false}, {atLeast(50, "x"), true}, {atLeast(51, "x"), false}, {atMost(50, "x"), true}, {atMost(49, "x"), false}} {
		if got := *(row{limit: "l", goal: c.g}.result(turns, Result{}).Reached); got != c.reached {
			t.Errorf("%+v: reached %v", c.g, got)
		}
	}
	if r := (row{}).result(turns, Result{}); r.Reached != nil || r.Limit != "" || r.Ratio != 0 {
		t.Errorf("without limit and target: %+v", r)
	}
}

// A measurement that fails, or ends because its context did, says which it was or
// why, and removes what it wrote.
func TestRunTidies(t *testing.T) {
	for name, fail := range map[string]error{"fails": errors.New("no luck"), "ends": nil} {
		t.Run(name, func(t *testing.T) {
			dir, cause := t.TempDir(), errors.New("enough")
			ctx, cancel := context.WithCancelCause(context.Background())
			s, err := openStage(Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			err = s.measure(ctx, measurement{name: "m", run: func(ctx context.Context, s *scene) ([][]turn, error) {
				if _, err := s.sub(); err != nil {
					return nil, err
				}
				if fail == nil {
					cancel(cause)
					return nil, context.Cause(ctx)
				}
				return nil, fail
			}}, nil)
			if fail != nil && err.Error() != "cannot measure m: no luck" || fail == nil && !errors.Is(err, cause) {
				t.Errorf("it says %v", err)
			}
			if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
				t.Errorf("it left %v, %v", left, err)
			}
			if err := s.close(); err != nil {
				t.Error(err)
			}
			cancel(nil)
		})
	}
}

// A quick run is compared with quick runs alone, and where no plot can be drawn nothing
// is measured.
func TestRefusedBeforeItMeasures(t *testing.T) {
	for _, quick := range []bool{false, true} {
		row := fmt.Sprintf(`{"name":"sha256","quick":%t}`, quick)
		if _, err := ReadEarlier(strings.NewReader(row), quick); err != nil {
			t.Error(err)
		}
		if _, err := ReadEarlier(strings.NewReader(row), !quick); err == nil || !strings.Contains(err.Error(), "--quick") {
			t.Errorf("quick %t with the other: %v", quick, err)
		}
	}
	file := filepath.Join(t.TempDir(), "plots")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{Quick: true, Plots: file}, func(r Result) error {
		return fmt.Errorf("%s was measured", r.Name)
	})
	if err == nil || !strings.Contains(err.Error(), "the directory of the plots") {
		t.Error(err)
	}
}

// What is drawn is XML of an image with the names of both axes and all curves.
func TestPlots(t *testing.T) {
	dir := t.TempDir()
	some := func(name string, filled bool) curve {
		return curve{name, []point{{16, 20}, {256, 450}, {4096, 90_000}}, filled}
	}
	for _, p := range []plot{
		{file: "lines.svg", title: "Lines", x: "size of < an & operation", y: "MB per second", xText: whole, curves: []curve{some("ours", false), some("limit", false)}},
		{file: "bars.svg", title: "Bars", x: "microseconds", y: "part, %", xText: whole, even: true, curves: []curve{{"took", histogram([]time.Duration{time.Millisecond, 3 * time.Millisecond, 3 * time.Millisecond}), true}}},
	} {
		if err := p.save(dir); err != nil {
			t.Fatal(err)
		}
		texts := svgTexts(t, filepath.Join(dir, p.file))
		want := []string{p.title, p.x, p.y}
		for _, c := range p.curves {
			want = append(want, c.name)
		}
		for _, w := range want {
			if !slices.Contains(texts, w) {
				t.Errorf("%s has no text %q, but %q", p.file, w, texts)
			}
		}
	}
}

// svgTexts reads an SVG file to its end and returns its texts.
func svgTexts(t *testing.T, file string) (texts []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, depth, root := xml.NewDecoder(f), 0, ""
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s is no XML: %v", file, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if depth++; depth == 1 {
				root = token.Name.Local
			}
		case xml.EndElement:
			depth--
		case xml.CharData:
			if s := strings.TrimSpace(string(token)); s != "" {
				texts = append(texts, s)
			}
		}
	}
	if root != "svg" || depth != 0 {
		t.Errorf("%s is a %q, and ends %d deep", file, root, depth)
	}
	return texts
}

// The bars of a histogram hold all that was measured.
func TestHistogram(t *testing.T) {
	var took []time.Duration
	for i := range 1000 {
		took = append(took, time.Duration(i+1)*7*time.Microsecond)
	}
	sum, outline := 0.0, histogram(took)
	for i := 0; i < len(outline); i += 2 {
		left, right := outline[i], outline[i+1]
		if left.y != right.y || math.Abs(right.x/left.x-math.Exp2(1.0/bucketsPerDouble)) > 1e-9 {
			t.Errorf("a bar from %v to %v", left, right)
		}
		sum += left.y
	}
	if math.Abs(sum-100) > 1e-9 || outline[0].x > 7 || outline[len(outline)-1].x < 7000 {
		t.Errorf("the bars sum up to %v %%, from %v to %v", sum, outline[0], outline[len(outline)-1])
	}
}
