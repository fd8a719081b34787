package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// Earlier is rows of other runs, by name: of another version or machine.
type Earlier map[string][]Result

// ReadEarlier reads rows as they are printed with --json, one object a line, of one
// run or of several, which must be quick as the run is that is compared with them.
func ReadEarlier(in io.Reader, quick bool) (Earlier, error) {
	e := Earlier{}
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var r Result
		if err := json.Unmarshal(line, &r); err != nil || r.Name == "" {
			return nil, fmt.Errorf("line %d is no row of bench --json", n)
		}
		if r.Quick != nil && *r.Quick != quick {
			with := map[bool]string{true: "with", false: "without"}
			return nil, fmt.Errorf("line %d was measured %s --quick, and now it is %s: measure both in one way", n, with[*r.Quick], with[quick])
		}
		e[r.Name] = append(e[r.Name], r)
	}
	return e, lines.Err()
}

// Compare fills in Before and Change of a row: by ratios where the row has a limit,
// since what the machine can do differs from run to run.
func (e Earlier) Compare(now *Result) {
	measure := func(r Result) float64 {
		if r.Limit != "" {
			return r.Ratio
		}
		return r.Value
	}
	var before []float64
	for _, r := range e[now.Name] {
		if r.Note == "" && r.Limit == now.Limit && r.Unit == now.Unit {
			before = append(before, measure(r))
		}
	}
	if len(before) == 0 || now.Note != "" {
		return
	}
	was, _, _ := Summary(before)
	is := measure(*now)
	if was <= 0 || is <= 0 {
		return
	}
	now.Before, now.Change = was, is/was
	if lessIsBetter[now.Unit] {
		now.Change = was / is
	}
}

// lessIsBetter has the units of times, sizes and shares.
var lessIsBetter = map[string]bool{us: true, ms: true, bytesOf: true, ofBytes: true, "MB": true, "% of a core": true}
