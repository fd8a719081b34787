package main

import (
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vixp2p/node/bench"
	"vixp2p/node/localapi"
)

// The page that these tests hold to the program. A command has a section of its
// name, "## put", and each of its flags a row there that begins with "| `--flag".
const commandsPage = "../../docs/commands.md"

// globalSection is the section of the flags that every command takes.
const globalSection = "Flags of every command"

var (
	flagRow  = regexp.MustCompile("^\\| (?:`-[a-z]`, )?`--([a-z-]+)[^`]*` \\| (.*?) \\| ")
	flagWord = regexp.MustCompile(`--([a-z][a-z-]*)`)
)

// commandsSections are the sections of the page, by title.
func commandsSections(t *testing.T) map[string]string {
	t.Helper()
	page, err := os.ReadFile(commandsPage)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, part := range strings.Split(string(page), "\n## ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		if _, twice := sections[title]; twice {
			t.Errorf("the page has the section %q twice", title)
		}
		sections[title] = body
	}
	return sections
}

// commandTree is the whole program as it is for a script, without a terminal.
func commandTree() *cobra.Command {
	p := &program{
		stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard,
		getenv:   func(string) string { return "" },
		terminal: func(io.Writer) bool { return false },
	}
	root := p.root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("x")
	root.InitDefaultHelpFlag()
	return root
}

// ownFlags are the flags of a command and of those below it that others do not
// have too.
func ownFlags(cmd *cobra.Command) map[string]*pflag.Flag {
	flags := map[string]*pflag.Flag{}
	for _, c := range append(slices.Clone(cmd.Commands()), cmd) {
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags[f.Name] = f
			}
		})
	}
	return flags
}

// flagRows are the defaults that a section's rows of flags name.
func flagRows(t *testing.T, title, section string) map[string]string {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(section) {
		m := flagRow.FindStringSubmatch(strings.ReplaceAll(line, `\|`, "/"))
		if m == nil {
			continue
		}
		if _, twice := rows[m[1]]; twice {
			t.Errorf("section %q has --%s twice", title, m[1])
		}
		rows[m[1]] = m[2]
	}
	return rows
}

func checkFlags(t *testing.T, title, section string, flags map[string]*pflag.Flag) {
	t.Helper()
	rows := flagRows(t, title, section)
	for name, f := range flags {
		told, ok := rows[name]
		switch {
		case !ok:
			t.Errorf("--%s is missing in section %q of %s: add a row", name, title, commandsPage)
		case f.Value.Type() == "bool":
			if told != "off" {
				t.Errorf("--%s in section %q: the default is off, and the page says %q", name, title, told)
			}
		case f.DefValue != "" && f.DefValue != "0" && !strings.Contains(told, "`"+f.DefValue+"`"):
			t.Errorf("--%s in section %q: the default is %q, and the page says %q", name, title, f.DefValue, told)
		}
	}
	for name := range rows {
		if flags[name] == nil {
			t.Errorf("section %q of %s has --%s, which is no flag of it", title, commandsPage, name)
		}
	}
}

// Every command and every flag is on the page, with its default, and nothing else
// is.
func TestEveryCommandAndFlagIsDocumented(t *testing.T) {
	sections, root := commandsSections(t), commandTree()
	global := map[string]*pflag.Flag{}
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { global[f.Name] = f })
	global["help"] = root.Flags().Lookup("help")
	checkFlags(t, globalSection, sections[globalSection], global)

	known, commands := maps.Clone(global), map[string]bool{}
	known["version"] = root.Flags().Lookup("version")
	for _, cmd := range root.Commands() {
		commands[cmd.Name()] = true
		section, ok := sections[cmd.Name()]
		if !ok {
			t.Errorf("the command %s has no section in %s: add one", cmd.Name(), commandsPage)
			continue
		}
		for _, name := range append(slices.Clone(cmd.Aliases), cmd.Name()) {
			if !strings.Contains(section, "`vix-node "+name) {
				t.Errorf("section %q does not say how to call `vix-node %s`", cmd.Name(), name)
			}
		}
		for _, sub := range cmd.Commands() {
			if !strings.Contains(section, "`"+sub.Name()+"`") {
				t.Errorf("section %q does not name `%s`", cmd.Name(), sub.Name())
			}
		}
		flags := ownFlags(cmd)
		maps.Copy(known, flags)
		checkFlags(t, cmd.Name(), section, flags)
	}
	for title, section := range sections {
		// A section in lower case is a command's.
		if title == strings.ToLower(title) && !commands[title] {
			t.Errorf("%s has the section %q, which is no command", commandsPage, title)
		}
		for _, m := range flagWord.FindAllStringSubmatch(section, -1) {
			if known[m[1]] == nil {
				t.Errorf("section %q of %s speaks of --%s, which is no flag", title, commandsPage, m[1])
			}
		}
	}
}

// Every row of bench is on the page.
func TestEveryBenchRowIsDocumented(t *testing.T) {
	section := commandsSections(t)["bench"]
	for _, name := range bench.Names() {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("the row %s of bench is missing in %s: add it to the table", name, commandsPage)
		}
	}
}

// Every field that a command prints with --json is on the page: as `name` where it
// is explained, or in an example.
func TestEveryFieldIsDocumented(t *testing.T) {
	sections := commandsSections(t)
	in := func(titles ...string) (text string) {
		for _, title := range titles {
			if sections[title] == "" {
				t.Errorf("%s has no section %q", commandsPage, title)
			}
			text += sections[title]
		}
		return text
	}
	for _, c := range []struct {
		value any
		text  string
		plain bool // an example does not count
	}{
		{localapi.Status{}, in("Fields of status", "Counters"), true},
		{localapi.Totals{}, in("Counters"), true},
		{localapi.Membership{}, in("Fields of status"), true},
		{membership{}, in("init"), false},
		{localapi.Invited{}, in("invite"), false},
		{localapi.Member{}, in("members"), false},
		{localapi.OpenInvite{}, in("members"), false},
		{localapi.Revoked{}, in("revoke"), false},
		{localapi.DeclaredSpace{}, in("space"), false},
		{localapi.Certificate{}, in("cert"), false},
		{localapi.Written{}, in("put"), false},
		{localapi.Entry{}, in("get", "JSON"), false},
		{localapi.Conflicts{}, in("get", "JSON"), false},
		{localapi.Event{}, in("watch", "JSON"), false},
		{appended{}, in("append"), false},
		{localapi.Record{}, in("tail", "JSON"), false},
		{localapi.Acked{}, in("load"), false},
		{localapi.Loaded{}, in("load"), false},
		{localapi.Finding{}, in("verify"), false},
		{localapi.Connected{}, in("connect"), false},
		{localapi.Disconnected{}, in("disconnect"), false},
		{localapi.Forgotten{}, in("forget"), false},
		{localapi.Sent{}, in("send"), false},
		{localapi.Message{}, in("messages", "JSON"), false},
		{versionInfo{}, in("version"), false},
		{demoRow{}, in("demo"), false},
		{bench.Result{}, in("bench"), false},
	} {
		for _, name := range slices.Sorted(maps.Keys(fieldNames(reflect.TypeOf(c.value), map[string]bool{}))) {
			if !strings.Contains(c.text, "`"+name+"`") && (c.plain || !strings.Contains(c.text, `"`+name+`":`)) {
				t.Errorf("%T prints %q, which %s does not explain", c.value, name, commandsPage)
			}
		}
	}
}

// fieldNames adds the names of a type's fields in JSON, at any depth.
func fieldNames(typ reflect.Type, names map[string]bool) map[string]bool {
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return fieldNames(typ.Elem(), names)
	case reflect.Struct:
	default:
		return names
	}
	if typ == reflect.TypeFor[localapi.Time]() {
		return names
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name != "" {
			names[name] = true
		}
		fieldNames(f.Type, names)
	}
	return names
}
