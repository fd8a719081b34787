package members_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vixp2p/test/internal/proc"
)

// TestTickets: every way in which a ticket is of no use says so, and loses nothing.
func TestTickets(t *testing.T) {
	t.Parallel()
	a := found(t, "A").Start()

	used := invite(a)
	b := newNode(t, "B")
	spaced := "  " + strings.ToUpper(used[:20]) + " \n\t" + strings.ToUpper(used[20:60]) + "\n" + strings.ToUpper(used[60:]) + "\n\n"
	if r := tryJoin(b, spaced); r.Code != 0 {
		t.Fatalf("a ticket in upper case, over several lines: exit %d\n%s", r.Code, r.Stderr)
	}
	if r := tryJoin(b, used); r.Code != 0 {
		t.Errorf("the same node joins again with its ticket: exit %d\n%s", r.Code, r.Stderr)
	}
	late := newNode(t, "late")
	says(t, "a used ticket", tryJoin(late, used), "used", "new ticket")
	if r := tryJoin(late, invite(a)); r.Code != 0 {
		t.Errorf("the same directory with a good ticket: exit %d\n%s", r.Code, r.Stderr)
	}

	short := invite(a, "--expires", "1s")
	eventually(t, "the invite has expired", func() bool { return strings.Contains(a.OK("members"), "expired") })
	says(t, "an expired ticket", tryJoin(newNode(t, "X"), short), "could be used until", "new one")

	var in struct{ Ticket, Invite string }
	if err := json.Unmarshal([]byte(a.OK("invite", "--json")), &in); err != nil {
		t.Fatal(err)
	}
	a.OK("revoke", in.Invite)
	says(t, "a ticket that was taken back", tryJoin(newNode(t, "X"), in.Ticket), "revoked")

	fresh := invite(a)
	other := found(t, "O")
	says(t, "a ticket in a directory of another network", tryJoin(other, fresh), "network", "directory")
	if r := other.Run("put", "k", "v"); r.Code != 0 {
		t.Errorf("that directory is of no use any more: %s", r.Stderr)
	}
	open := newNode(t, "P")
	open.OK("put", "k", "v")
	says(t, "a ticket in a directory with data", tryJoin(open, fresh), "another data directory")
	if got := open.OK("get", "k"); got != "v" {
		t.Errorf("its data: %q", got)
	}
	says(t, "the directory of a running node", tryJoin(a, fresh), "running")

	swapped := []byte(fresh)
	swapped[50] ^= 'a' ^ 'b'
	if swapped[50] < 'a' || swapped[50] > 'z' {
		swapped[50] = 'q'
	}
	for name, ticket := range map[string]string{
		"with a wrong character": string(swapped), "without its end": fresh[:len(fresh)-3], "of nothing": "", "that is something else": "hello",
	} {
		says(t, "a ticket "+name, tryJoin(newNode(t, "X"), ticket), "ticket")
	}
	if r := tryJoin(newNode(t, "Y"), fresh); r.Code != 0 {
		t.Errorf("the ticket itself is good still: exit %d\n%s", r.Code, r.Stderr)
	}

	gone := invite(a)
	a.Stop()
	says(t, "an admin that is not there", tryJoin(late, gone), "does not answer", "same ticket")
	a.Start()
	if r := tryJoin(newNode(t, "Z"), gone); r.Code != 0 {
		t.Errorf("after the admin's restart: exit %d\n%s", r.Code, r.Stderr)
	}
	says(t, "an admin's second thoughts", a.Run("revoke", strings.Repeat("0", 64)), "no member is known")
}

// TestJoinAnswerLost: the joiner is killed when the admin has certified it and the
// answer is on its way. The same ticket completes it.
func TestJoinAnswerLost(t *testing.T) {
	long(t)
	t.Parallel()
	a := found(t, "A").Start()
	b := newNode(t, "B")
	slow := (&proxy{late: 200 * time.Millisecond}).listen(t, a.Addr())
	lost := false
	var ticket string
	for range 5 { // the answer may be faster
		ticket = invite(a, "--addr", "tcp://"+slow)
		before := len(linesWith(a.Stderr(), "has joined"))
		cmd := exec.Command(proc.Binary(t), "join", "--id", "B", "--data-dir", b.Dir, "-")
		cmd.Stdin = strings.NewReader(ticket)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the admin certifies the joiner", func() bool { return len(linesWith(a.Stderr(), "has joined")) > before })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := os.Stat(filepath.Join(b.Dir, "certificate.pem")); err != nil {
			lost = true
			break
		}
		b = newNode(t, "B")
	}
	if !lost {
		t.Fatal("the answer arrived each time")
	}
	if r := tryJoin(b, ticket); r.Code != 0 {
		t.Fatalf("the same ticket again: exit %d\n%s", r.Code, r.Stderr)
	}
	id := idOf(b)
	if n := strings.Count(a.OK("members", "--json"), fmt.Sprintf("%q", id)); n != 1 {
		t.Errorf("the admin knows %s %d times", id, n)
	}
	b.Start()
	b.OK("put", "k", "v")
	eventually(t, "A has what B wrote", has(a, "k", "v"))
}
