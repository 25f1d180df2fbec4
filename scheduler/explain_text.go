package scheduler

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// shownClasses bounds the columns and rows of an Explanation's text.
const (
	shownFeasible = 5
	shownRejected = 20
)

// String is the explanation as tables for people: what was decided, each plugin's score of the best classes of nodes, and why the others were rejected.
func (x *Explanation) String() string {
	var b strings.Builder
	d := &x.Decision
	switch {
	case x.Rejection != nil:
		fmt.Fprintf(&b, "%s goes to no node: %s: %s\n", x.Pod, x.Rejection.Plugin, strings.Join(x.Rejection.Reasons, ", "))
		return b.String()
	case !d.Fits():
		fmt.Fprintf(&b, "%s fits on no node: %s\n", x.Pod, d.Message())
	case x.Nominated:
		fmt.Fprintf(&b, "%s goes to %s, where room was made for it\n", x.Pod, d.Node)
	case x.RunnerUp() == nil:
		fmt.Fprintf(&b, "%s goes to %s, the only one of %d nodes that can take it\n", x.Pod, d.Node, d.Nodes)
	case x.Margin() == 0:
		fmt.Fprintf(&b, "%s goes to %s with %d points, by chance among %d equal nodes (%d of %d nodes can take it)\n", x.Pod, d.Node, d.Score, x.Best(), d.Feasible, d.Nodes)
	default:
		fmt.Fprintf(&b, "%s goes to %s with %d points, %d ahead of %s (%d of %d nodes can take it)\n", x.Pod, d.Node, d.Score, x.Margin(), x.RunnerUp().Node, d.Feasible, d.Nodes)
	}
	classes := x.Classes()
	n := 0
	for n < len(classes) && classes[n].Feasible {
		n++
	}
	x.writeScores(&b, classes[:n])
	x.writeRejected(&b, classes[n:])
	return b.String()
}

func (x *Explanation) writeScores(b *strings.Builder, classes []NodeClass) {
	if len(classes) == 0 {
		return
	}
	more := max(len(classes)-shownFeasible, 0)
	classes = classes[:len(classes)-more]
	b.WriteString("\nScores: the plugin's own figure > 0 to 100 x weight = points\n")
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "PLUGIN")
	for i := range classes {
		fmt.Fprint(w, "\t", alike(classes[i].Nodes))
	}
	fmt.Fprintln(w)
	for i, p := range x.Plugins {
		any := false
		line := p.Name
		for k := range classes {
			v := &classes[k].Verdicts[i]
			any = any || v.Scored
			line += "\t" + v.points(p.Weight)
		}
		if any {
			fmt.Fprintln(w, line)
		}
	}
	fmt.Fprint(w, "total")
	for i := range classes {
		fmt.Fprint(w, "\t", classes[i].Score)
	}
	fmt.Fprintln(w)
	_ = w.Flush()
	if more > 0 {
		fmt.Fprintf(b, "and %d more classes of nodes with fewer points, or equal\n", more)
	}
}

func (v *Verdict) points(weight int64) string {
	if !v.Scored {
		return "-"
	}
	s := fmt.Sprint(v.Normalized)
	if v.Raw != v.Normalized {
		s = fmt.Sprint(v.Raw, " > ", v.Normalized)
	}
	if weight != 1 {
		s += fmt.Sprintf(" x %d = %d", weight, v.Weighted)
	}
	return s
}

func (x *Explanation) writeRejected(b *strings.Builder, classes []NodeClass) {
	if len(classes) == 0 {
		return
	}
	more := max(len(classes)-shownRejected, 0)
	classes = classes[:len(classes)-more]
	b.WriteString("\nRejected\n")
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODES\tPLUGIN\tREASON\tIF PODS LEFT")
	for i := range classes {
		who := alike(classes[i].Nodes)
		for k, v := range classes[i].Verdicts {
			if v.Rejection == nil {
				continue
			}
			could := "perhaps"
			if v.Rejection.Unresolvable {
				could = "no"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", who, x.Plugins[k].Name, strings.Join(v.Rejection.Reasons, ", "), could)
			who = ""
		}
	}
	_ = w.Flush()
	if more > 0 {
		fmt.Fprintf(b, "and %d more classes of nodes\n", more)
	}
}

// alike names a class of nodes shortly.
func alike(nodes []string) string {
	switch len(nodes) {
	case 1:
		return nodes[0]
	case 2:
		return nodes[0] + ", " + nodes[1]
	}
	return fmt.Sprintf("%s and %d alike", nodes[0], len(nodes)-1)
}
