package main

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/node/api"
)

// refusalView is a refusal as JSON.
type refusalView struct {
	Request     string       `json:"request"`
	Receipt     string       `json:"receipt"`
	Zone        fcp.ZoneID   `json:"zone"`
	Reason      string       `json:"reason"`
	Explanation string       `json:"explanation,omitempty"`
	Decided     string       `json:"decided"`
	Node        string       `json:"node"` // that decided
	Evidence    []string     `json:"evidence"`
	Smallest    *suggestView `json:"smallest_grant,omitempty"`
	Position    uint64       `json:"position,omitempty"`
}

func (a *app) viewRefusal(d *authority.DecisionReceipt, position uint64) refusalView {
	v := refusalView{Request: d.Request().String(), Receipt: d.Ref().String(), Zone: d.Zone(), Reason: string(d.Reason()), Explanation: d.Explanation(),
		Decided: secondsText(d.DecidedAt()), Node: d.Node().String(), Evidence: []string{}, Position: position}
	for _, h := range d.Evidence() {
		v.Evidence = append(v.Evidence, h.String())
	}
	if g, ok := d.Smallest(); ok {
		s := suggestedView(a, &g)
		v.Smallest = &s
	}
	return v
}

func (v *refusalView) fields() []field {
	out := []field{{"refused", v.Reason}, {"because", v.Explanation}, {"zone", v.Zone.String()}, {"decided", v.Decided}, {"by", v.Node},
		{"request", v.Request}, {"receipt", v.Receipt}}
	for _, h := range v.Evidence {
		out = append(out, field{"rests on", h})
	}
	if v.Smallest != nil {
		out = append(out, field{"would pass", v.Smallest.Command})
	}
	return out
}

func (a *app) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "why ID", Short: "Why something was refused, and the smallest grant that would pass", Args: args(1, 1),
		Long: `why explains a refusal from the receipt that the deciding device signed: the reason,
what it rests on, and the smallest grant that would have passed. ID is the first
digits of a request or receipt, as the refusal printed it. Of a device that was
declared lost (its name, or digits of its id or of the revocation) it says since when,
why, and what is to be done.`,
		ValidArgsFunction: a.completeRefusals,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAny(cmd.Context(), reading, func(e api.Store) error {
				if found, err := a.whyAlert(cmd.Context(), e, args[0]); found || err != nil {
					return err
				}
				r, position, err := e.Refusal(args[0])
				if err != nil {
					return err
				}
				v := a.viewRefusal(r, position)
				fields := append(v.fields(), field{"next", a.command("prove", "--refusal", v.Request[:16])})
				return a.answer("Refusal", e.Position(), v, v.Receipt, fields...)
			})
		},
	}
}

// proveRefusal writes a bundle that shows the refusal to anybody.
func (a *app) proveRefusal(e *engine.Engine, id string) error {
	r, err := e.FindRefusal(id)
	if err != nil {
		return err
	}
	b, err := e.ProveRefusal(r)
	if err != nil {
		return err
	}
	if _, err := a.out.Write(b); err != nil {
		return err
	}
	a.answered(e.Position(), "check it anywhere with `fcpctl prove --check FILE`")
	return nil
}

// provenRefusalView is a checked refusal bundle as JSON.
type provenRefusalView struct {
	refusalView
	Owner    string         `json:"owner"` // of the store, by its key's id
	Verified []evidenceView `json:"verified"`
	Revoked  string         `json:"revoked_by,omitempty"` // the owner's revocation
}

type evidenceView struct {
	Ref  string `json:"ref"`
	What string `json:"what"`
}

func (a *app) checkRefusal(b []byte) error {
	p, err := engine.OpenRefusal(b)
	if err != nil {
		return advise(err, fcp.CodeOf(err), "do not trust this proof; ask for it again from who made it")
	}
	v := provenRefusalView{refusalView: a.viewRefusal(p.DecisionReceipt, 0), Owner: fcp.KidOf(p.Owner[:]).String(), Verified: []evidenceView{}}
	fields := append([]field{{"result", "the proof is right"}, {"owner", v.Owner}}, v.fields()...)
	slices.SortFunc(p.Evidence, func(x, y engine.ProvenEvidence) int {
		return cmp.Or(cmp.Compare(x.What, y.What), bytes.Compare(x.Ref[:], y.Ref[:]))
	})
	for _, x := range p.Evidence {
		v.Verified = append(v.Verified, evidenceView{x.Ref.String(), x.What})
		fields = append(fields, field{"verified", x.What + " " + x.Ref.String()})
	}
	if p.Revoked != nil {
		v.Revoked = p.Revoked.Ref().String()
		fields = append(fields, field{"revoked by", v.Revoked})
	}
	return a.record("ProvenRefusal", 0, v, v.Receipt, fields...)
}
