// Package crash tests what survives: kill -9, copied directories, damaged files.
package crash

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

func TestMain(m *testing.M) { proc.Main(m) }

var (
	kills = flag.Int("kills", 30, "how often TestKillDuringLoad kills a process")
	seed  = flag.Uint64("seed", 0, "seed of the random choices; 0 picks one")
)

func seeded(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("replay the same choices with -seed %d", s)
	return rand.New(rand.NewPCG(s, 1))
}

func key(i int) string   { return fmt.Sprintf("k/%06d", i) }
func value(i int) string { return fmt.Sprintf("value %d %s", i, strings.Repeat("x", i%200)) }

// loader is a load command whose input and acknowledgements the test controls.
type loader struct {
	cmd   *exec.Cmd
	acks  *bufio.Scanner
	first int
	acked int // records of this load that were acknowledged, from first on
}

// startLoad feeds records first..first+n-1.
func startLoad(t *testing.T, n *proc.Node, first, count int) *loader {
	t.Helper()
	l := &loader{first: first, cmd: exec.Command(proc.Binary(t), "load", "-", "--json", "--data-dir", n.Dir)}
	in, err := l.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.acks = bufio.NewScanner(out)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		w := bufio.NewWriter(in)
		for i := first; i < first+count; i++ {
			if _, err := fmt.Fprintf(w, "{\"key\":%q,\"value\":%q}\n", key(i), value(i)); err != nil {
				break
			}
		}
		_ = w.Flush()
		_ = in.Close()
	}()
	return l
}

// next reads the next acknowledgement; false at the end.
func (l *loader) next(t *testing.T) bool {
	for l.acks.Scan() {
		var line struct{ Acked, Records *int }
		if err := json.Unmarshal(l.acks.Bytes(), &line); err != nil {
			t.Fatalf("load printed %q: %v", l.acks.Text(), err)
		}
		if line.Acked != nil {
			l.acked = *line.Acked
			return true
		}
	}
	return false
}

// TestKillDuringLoad kills the sender or the receiver at random moments of a
// load. Every acknowledged record is on both in the end, nothing is twice, no
// log has a gap, and the digests are equal.
func TestKillDuringLoad(t *testing.T) {
	rng := seeded(t)
	a := proc.New(t, "A")
	b := proc.New(t, "B", "--connect", a.Addr())
	a.Start()
	b.Start()
	acked := 0 // records 0..acked-1 were acknowledged by A
	const batch = 20000
	for round := range *kills {
		victim := a
		if round%2 == 1 {
			victim = b
		}
		l := startLoad(t, a, acked, batch)
		for n := 1 + rng.IntN(6); n > 0 && l.next(t); n-- {
		}
		time.Sleep(time.Duration(rng.IntN(20_000)) * time.Microsecond) // in the middle of what comes next
		victim.Kill()
		if victim == b {
			// The sender goes on: let it take some more, then end the load.
			for n := rng.IntN(4); n > 0 && l.next(t); n-- {
			}
			_ = l.cmd.Process.Kill()
		}
		for l.next(t) {
		}
		_ = l.cmd.Wait()
		acked += l.acked
		victim.Start()
		if acked == 0 {
			continue
		}
		for range 5 {
			i := rng.IntN(acked)
			if got := a.OK("get", key(i)); got != value(i) {
				t.Fatalf("round %d: acknowledged %s is %q on A, not %q", round, key(i), got, value(i))
			}
		}
	}
	t.Logf("%d records acknowledged over %d kills", acked, *kills)
	proc.Converged(t, a, b)
	for _, n := range []*proc.Node{a, b} {
		checkKeys(t, n, acked)
		checkTail(t, n)
		if r := n.Run("verify", "--json"); r.Code != 0 {
			t.Errorf("verify on %s: exit %d\n%s", n.Label, r.Code, r.Stdout)
		}
	}
}

// checkKeys compares every record below acked.
func checkKeys(t *testing.T, n *proc.Node, acked int) {
	t.Helper()
	have := map[string]string{}
	sc := bufio.NewScanner(strings.NewReader(n.OK("ls", "k/", "--json")))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e struct {
			Key, Value string
			Conflicts  int
		}
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		have[e.Key] = e.Value
		if e.Conflicts != 0 {
			t.Errorf("%s: %s has %d conflicts; one program wrote it", n.Label, e.Key, e.Conflicts)
		}
	}
	for i := range acked {
		if have[key(i)] != value(i) {
			t.Fatalf("%s: acknowledged %s is %q, not %q", n.Label, key(i), have[key(i)], value(i))
		}
	}
}

// checkTail walks every operation: each (log, seq) once, no gap.
func checkTail(t *testing.T, n *proc.Node) {
	t.Helper()
	next := map[string]uint64{}
	sc := bufio.NewScanner(strings.NewReader(n.OK("tail", "--json")))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var e struct {
			Log string
			Seq uint64
		}
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.Seq != next[e.Log]+1 {
			t.Fatalf("%s: seq %d of log %s comes after %d", n.Label, e.Seq, e.Log, next[e.Log])
		}
		next[e.Log] = e.Seq
	}
	if len(next) == 0 {
		t.Errorf("%s: the tail is empty", n.Label)
	}
}
