package trust

import (
	"cmp"

	"google.golang.org/protobuf/encoding/protowire"

	"vixp2p/replication"
	"vixp2p/replication/canonical"
)

// Invite is an admin's statement that it will certify who shows the private key
// to Public, once (design 9.5).
type Invite struct {
	Public replication.OriginKey // Ed25519; its seed is in the ticket
	Grants []Grant               // what the joiner gets; ascending by space and role
	Label  string                // a hint for the joiner's label
	// Expires is until when it can be used, in Unix seconds; 0: no end.
	Expires int64
	// Validity is how long the certificate is valid from its issue, in seconds;
	// 0: without end.
	Validity int64
}

// Field numbers of an invite (v1).
const (
	iPublic   protowire.Number = 1
	iGrant    protowire.Number = 2
	iLabel    protowire.Number = 3
	iExpires  protowire.Number = 4
	iValidity protowire.Number = 5
)

// Encode is the payload of the operation.
func (i *Invite) Encode() []byte {
	b := appendID(nil, iPublic, i.Public[:])
	b = appendGrants(b, iGrant, normalGrants(i.Grants))
	b = canonical.AppendBytes(b, iLabel, []byte(i.Label))
	b = canonical.AppendVarint(b, iExpires, uint64(i.Expires))
	return canonical.AppendVarint(b, iValidity, uint64(i.Validity))
}

func decodeInvite(b []byte) (*Invite, error) {
	i := &Invite{}
	err := decodeFields("invite", b, canonical.SetOf(iGrant), canonical.SetOf(iPublic, iGrant), func(f canonical.Field) (err error) {
		switch f.Num {
		case iPublic:
			err = fixedID(f, i.Public[:])
		case iGrant:
			i.Grants, err = decodeGrant(i.Grants, f)
		case iLabel:
			i.Label, err = text(f, MaxLabel)
		case iExpires:
			i.Expires, err = seconds(f)
		case iValidity:
			i.Validity, err = seconds(f)
		default:
			err = errUnknownField
		}
		return err
	})
	if err == nil {
		err = cmp.Or(checkGrants(i.Grants), i.check())
	}
	return i, err
}

func (i *Invite) check() error {
	if isZero(i.Public[:]) {
		return canonical.Invalidf("an invite without a key")
	}
	return cmp.Or(
		checkGrants(normalGrants(i.Grants)), checkText("label", i.Label, MaxLabel),
		checkSeconds("end of the invite", i.Expires), checkSeconds("validity of the certificate", i.Validity),
	)
}
