package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The values that flags take. Each says in its error what it takes, so that a
// message reads `--tui takes on or off, not "maybe"`.

// onOff is a switch as the original's command line has them.
type onOff bool

func (v *onOff) Type() string   { return "on|off" }
func (v *onOff) String() string { return map[onOff]string{true: "on", false: "off"}[*v] }
func (v *onOff) Set(s string) error {
	switch s {
	case "on":
		*v = true
	case "off":
		*v = false
	default:
		return fmt.Errorf("takes on or off, not %q", s)
	}
	return nil
}

// choice is one of some words.
type choice struct {
	value   string
	options []string
}

func (v *choice) Type() string   { return strings.Join(v.options, "|") }
func (v *choice) String() string { return v.value }
func (v *choice) Set(s string) error {
	if !slices.Contains(v.options, s) {
		last := len(v.options) - 1
		return fmt.Errorf("takes %s or %s, not %q", strings.Join(v.options[:last], ", "), v.options[last], s)
	}
	v.value = s
	return nil
}

// count is a whole number from min to max.
type count struct {
	value int
	min   int
	max   int // 0: no limit but that of 31 bits
}

func (v *count) Type() string   { return "n" }
func (v *count) String() string { return strconv.Itoa(v.value) }
func (v *count) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 31)
	switch {
	case err == nil && int(n) >= v.min && (v.max == 0 || int(n) <= v.max):
		v.value = int(n)
		return nil
	case v.max > 0:
		return fmt.Errorf("takes a whole number from %d to %d, not %q", v.min, v.max, s)
	}
	return fmt.Errorf("takes a whole number from %d on, not %q", v.min, s)
}

// span is a time: a number of the flag's own unit, or with a unit of its own.
type span struct {
	value time.Duration
	unit  time.Duration
	min   time.Duration // the least besides 0
	max   time.Duration // 0: maxSpan
	// noZero is what to do instead where 0 makes no sense; empty: 0 has a meaning.
	noZero string
}

const (
	day     = 24 * time.Hour
	maxSpan = 10 * 365 * day
)

func (v *span) Type() string {
	return map[time.Duration]string{time.Second: "seconds", time.Millisecond: "ms"}[v.unit]
}

func (v *span) String() string {
	if v.value%v.unit == 0 {
		return strconv.FormatInt(int64(v.value/v.unit), 10)
	}
	return v.value.String()
}

func (v *span) Set(s string) error {
	most := cmp.Or(v.max, maxSpan)
	d, ok := parseSpan(s, v.unit)
	switch {
	case !ok || d < 0:
		return fmt.Errorf("takes a number of %s, or a time such as 500ms, 30s, 5m or 7d, not %q", map[time.Duration]string{time.Second: "seconds", time.Millisecond: "milliseconds"}[v.unit], s)
	case d > float64(most):
		return fmt.Errorf("takes at most %s, not %q", spanText(most), s)
	case d < 1 && v.noZero != "":
		return fmt.Errorf("takes %s or more, not %q: %s", spanText(max(v.min, 1)), s, v.noZero)
	case d < 1 && d > 0 || d >= 1 && time.Duration(d) < v.min:
		return fmt.Errorf("takes %s or more, not %q", spanText(max(v.min, 1)), s)
	}
	v.value = time.Duration(d)
	return nil
}

// spanForm is a number, or one with a unit.
var spanForm = regexp.MustCompile(`^([0-9.]+)(ms|s|m|h|d)?$`)

// parseSpan reads a time in nanoseconds, however large; false: it is none.
func parseSpan(s string, unit time.Duration) (float64, bool) {
	m := spanForm.FindStringSubmatch(s)
	if m == nil {
		d, err := time.ParseDuration(s) // several units, as 1h30m
		return float64(d), err == nil
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if u := map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": day}[m[2]]; u != 0 {
		unit = u
	}
	return n * float64(unit), err == nil
}

// spanText is a limit for people.
func spanText(d time.Duration) string {
	for _, u := range []struct {
		of   time.Duration
		name string
	}{{365 * day, "year"}, {day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := d / u.of; n > 0 && d%u.of == 0 {
			return many(uint64(n), u.name, u.name+"s")
		}
	}
	return d.String()
}

// addresses is a flag that may be given again.
type addresses []string

func (v *addresses) Type() string   { return "addr" }
func (v *addresses) String() string { return strings.Join(*v, ",") }
func (v *addresses) Set(s string) error {
	if s == "" {
		return errors.New("takes an address, and got none")
	}
	*v = append(*v, s)
	return nil
}

// texts is a flag of names that may be given again.
type texts []string

func (v *texts) Type() string   { return "name" }
func (v *texts) String() string { return strings.Join(*v, ",") }
func (v *texts) Set(s string) error {
	if s == "" {
		return errors.New("takes a name, and got none")
	}
	*v = append(*v, s)
	return nil
}

// logLevel is one of the original's levels, or an alias of one.
type logLevel struct {
	name  string
	level slog.Level
}

const (
	levelTrace    = slog.LevelDebug - 4
	levelCritical = slog.LevelError + 4
	levelOff      = slog.Level(1000)
)

var logLevels = map[string]slog.Level{
	"trace": levelTrace, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "warning": slog.LevelWarn,
	"error": slog.LevelError, "err": slog.LevelError,
	"critical": levelCritical, "fatal": levelCritical,
	"off": levelOff, "none": levelOff,
}

func (v *logLevel) Type() string   { return "level" }
func (v *logLevel) String() string { return v.name }
func (v *logLevel) Set(s string) error {
	l, ok := logLevels[strings.ToLower(s)]
	if !ok {
		return fmt.Errorf("takes trace, debug, info, warn, error, critical or off, not %q", s)
	}
	v.name, v.level = strings.ToLower(s), l
	return nil
}

// envName is the environment variable of a flag.
func envName(flag string) string {
	return "VIX_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// applyEnv sets the flags that the command line left alone and the environment
// names. A list has its items between commas or white space. --id on the command
// line names a directory too: then the variable of --data-dir counts for nothing.
func (p *program) applyEnv(cmd *cobra.Command) error {
	var first error
	named := cmd.Flags().Changed("id")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value := p.getenv(envName(f.Name))
		if first != nil || f.Changed || value == "" || f.Name == "help" || f.Name == "version" || f.Name == "data-dir" && named {
			return
		}
		values := []string{value}
		if _, list := f.Value.(*addresses); list {
			values = strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(", \t\n", r) })
		}
		for _, v := range values {
			if err := cmd.Flags().Set(f.Name, v); err != nil && first == nil {
				first = &usageError{fmt.Errorf("the environment variable %s: %w", envName(f.Name), flagError(err))}
			}
		}
	})
	return first
}

// flagError puts what the flag library says into one sentence of ours.
func flagError(err error) error {
	var (
		invalid *pflag.InvalidValueError
		missing *pflag.ValueRequiredError
		unknown *pflag.NotExistError
	)
	switch {
	case errors.As(err, &invalid):
		name := "--" + invalid.GetFlag().Name
		if invalid.GetFlag().Value.Type() == "bool" {
			return usagef("%s takes true or false, not %q", name, invalid.GetValue())
		}
		return usagef("%s %w", name, invalid.Unwrap())
	case errors.As(err, &missing):
		return usagef("--%s needs a value: %s", missing.GetSpecifiedName(), missing.GetFlag().Value.Type())
	case errors.As(err, &unknown):
		if short := unknown.GetSpecifiedShortnames(); short != "" {
			return usagef("unknown flag -%s (put -- before an argument that begins with -)", short)
		}
		return usagef("unknown flag --%s", unknown.GetSpecifiedName())
	}
	return &usageError{err}
}

// amount is a number of bytes, or of K, M or G of 1024, of its square or cube.
type amount struct {
	value int64
	min   int64
}

func (v *amount) Type() string { return "bytes" }
func (v *amount) String() string {
	for i, unit := range amountUnits {
		if size := int64(1) << (10 * (len(amountUnits) - i)); v.value >= size && v.value%size == 0 {
			return strconv.FormatInt(v.value/size, 10) + unit
		}
	}
	return strconv.FormatInt(v.value, 10)
}

// amountUnits from the largest on.
var amountUnits = []string{"G", "M", "K"}

func (v *amount) Set(s string) error {
	digits, shift := s, 0
	for i, unit := range amountUnits {
		if rest, ok := strings.CutSuffix(strings.ToUpper(s), unit); ok {
			digits, shift = rest, 10*(len(amountUnits)-i)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift || n<<shift < v.min {
		return fmt.Errorf("takes a number of bytes from %s on, such as 500000, 64K, 10M or 1G, not %q", (&amount{value: v.min}).String(), s)
	}
	v.value = n << shift
	return nil
}
