package protocols

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	p2pv1 "vixp2p/proto/vix/p2p/v1"
	"vixp2p/replication"
)

// Every code of the .proto file has a name in the core and an error here, and
// both directions of the table agree.
func TestCodesAndErrors(t *testing.T) {
	for number, name := range p2pv1.ErrorCode_name {
		code := replication.Code(number)
		if code == replication.CodeOK {
			continue
		}
		if strings.HasPrefix(code.String(), "code ") {
			t.Errorf("%s (%d) has no name in package replication", name, number)
		}
		r, ok := reasonOf(code)
		if !ok {
			t.Errorf("%s has no error", name)
			continue
		}
		if got := CodeOf(fmt.Errorf("wrapped: %w", r.err)); got != code {
			t.Errorf("%s: its error gives %v", name, got)
		}
		told := ErrorOf(code, "detail")
		if !errors.Is(told, r.err) || CodeOf(told) != code {
			t.Errorf("%s: told %v", name, told)
		}
		if !strings.HasPrefix(told.Error(), "the peer says: "+code.String()+" (detail)") {
			t.Errorf("%s reads %q", name, told)
		}
	}
	for _, r := range reasons {
		if _, ok := p2pv1.ErrorCode_name[int32(r.code)]; !ok {
			t.Errorf("%v is not in the .proto file", r.code)
		}
	}
}

func TestCodeOfOtherErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want replication.Code
	}{
		{nil, replication.CodeOK},
		{errors.New("a bug"), replication.CodeInternal},
		{&replication.SignatureError{}, replication.CodeBadRun},
		{&replication.InvalidError{}, replication.CodeBadRun},
		{&replication.ForkedError{}, replication.CodeForked},
		{&replication.DamageError{}, replication.CodeDamaged},
		{&replication.VersionError{What: "block format", Got: 2, Want: 1}, replication.CodeTooNew},
		{&MajorError{Got: 2}, replication.CodeOtherMajor},
		{faultf(ErrOversize, TypePing, "x"), replication.CodeProtocol},
		{Refuse(replication.CodeBusy, ""), replication.CodeBusy},
		{fmt.Errorf("wrapped: %w", Refuse(replication.CodeCertRevoked, "")), replication.CodeCertRevoked},
		{replication.ErrClosed, replication.CodeShutdown},
	} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
	if ErrorOf(replication.CodeOK, "") != nil {
		t.Error("CodeOK is an error")
	}
	later := ErrorOf(4711, "of a later version")
	if CodeOf(later) != 4711 || !strings.Contains(later.Error(), "code 4711") {
		t.Errorf("an unknown code reads %q", later)
	}
}

func TestErrorsReadAsSentences(t *testing.T) {
	for err, want := range map[error]string{
		Refuse(replication.CodeDuplicate, ""):                                    "duplicate session: the other session of this pair goes on",
		faultf(ErrOversize, TypePing, "an envelope of 300 bytes, more than 256"): "oversize frame in Ping: an envelope of 300 bytes, more than 256; the other side does not follow this protocol (docs/wire.md)",
		&MajorError{Got: 2}: "the other side speaks major version 2 of the protocol and this program 1: upgrade the older one",
	} {
		if err.Error() != want {
			t.Errorf("reads %q, want %q", err, want)
		}
	}
}
