package apiservertest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/keelson/keelson/apiserver/apiservertest"
)

// known are the requests that are answered otherwise on purpose, by reason, as SCRIPT: TITLE. COMPATIBILITY.md has the reasons in the same words.
func known() []apiservertest.Difference {
	var out []apiservertest.Difference
	for _, k := range []struct {
		reason   string
		requests []string
	}{
		{`Values that messages quote have the form of the API, not that of the types inside kube-apiserver.`, []string{
			"access: self review both",
			"access: review with a name",
			"cluster: volume: bad csi",
			"cluster: volume source immutable",
			"cluster: runtime class immutable",
			"cluster: binding ref immutable",
			"config: claim immutable",
			"network: service: same ports",
			"network: slice type is immutable",
			"pods: bad security context",
			"pods: other fields may not change",
			"workloads: deployment: bad strategy",
			"workloads: statefulset: on delete with rolling",
			"workloads: daemonset: bad",
			"workloads: job immutable",
			"workloads: pdb bad",
			"requests: update uid",
			"requests: delete not options",
		}},
		{`Of an object with several mistakes, another choice of them may be told.`, []string{
			"cluster: volume: empty",
			"cluster: csi driver bad",
			"cluster: volume attachment bad",
			"cluster: csi capacity bad",
			"config: limit range bad",
			"config: quota scopes are immutable",
			"config: new event bad",
			"config: claim bad",
			"network: slice bad",
			"pods: bad spread",
			"workloads: job: bad success policy",
			"workloads: hpa: bad metrics",
		}},
		{`What is not served is in no discovery document, and has no bootstrap roles.`, []string{
			"access: forbidden discovery",
			"cluster: volume attributes class",
			"cluster: bootstrap clusterroles",
			"cluster: bootstrap clusterrolebindings",
			"discovery: groups",
			"discovery: core",
			"discovery: certificates.k8s.io v1",
			"discovery: networking.k8s.io v1",
			"discovery: storage.k8s.io v1",
			"discovery: aggregated core",
			"discovery: aggregated",
			"requests: get root",
		}},
		{`Bootstrap roles give the same permissions as far as their resources are served, put together in other rules, and aggregated roles have theirs from the start.`, []string{
			"cluster: bootstrap view",
			"cluster: bootstrap edit",
			"cluster: bootstrap admin",
			"cluster: bootstrap system node",
			"cluster: bootstrap system kube-scheduler",
			"cluster: bootstrap system node-proxier",
			"cluster: bootstrap system aggregate-to-view",
			"cluster: bootstrap system aggregate-to-edit",
			"cluster: bootstrap system controller deployment-controller",
		}},
		{`PersistentVolumes and claims have no finalizers of their own, for nothing would take them away.`, []string{
			"cluster: volume",
			"cluster: volume: csi",
			"config: claim",
			"nodes: claim used",
			"nodes: volume used",
			"nodes: claim other",
			"nodes: volume other",
			"nodes: read claim used",
			"nodes: read volume used",
		}},
		{`Impersonation is allowed as a whole (the verb impersonate), not by what it is for.`, []string{
			"access: impersonate forbidden",
		}},
		{`The fields of features that are not there are dropped with a warning.`, []string{
			"config: lease bad",
			"pods: stop signal",
			"pods: resize",
		}},
		{`The toleration operators Lt and Gt are refused.`, []string{
			"pods: toleration lt",
		}},
		{`A core Event with an eventTime is not held to the rules of events.k8s.io.`, []string{
			"config: event with a time",
		}},
		{`The status of a Job is not checked for contradictions.`, []string{
			"workloads: job status",
		}},
		{`The version says that it is Keelson.`, []string{
			"access: anonymous version",
			"requests: path version ",
		}},
		{`Some mistakes that are internal errors of kube-apiserver (500) are told as what they are.`, []string{
			"requests: namespace dots",
			"pods: exec without command",
			"access: binding to nothing",
		}},
		{`Paths below those of documents and discovery that nothing serves are 404, as text or as a Status.`, []string{
			"requests: path openapi v2 x",
			"requests: path .well-known openid-configuration x",
		}},
		{`Lists of all namespaces have the pods of the whole cluster.`, []string{
			"requests: encoded slash in the path",
		}},
		{`A watch without resourceVersion begins with what there is at once.`, []string{
			"requests: bad boolean",
		}},
		{`The older form of aggregated discovery (v2beta1) is answered in the plain form.`, []string{
			"discovery: aggregated old",
		}},
	} {
		for _, r := range k.requests {
			script, title, _ := strings.Cut(r, ": ")
			out = append(out, apiservertest.Difference{Script: script, Title: title, Reason: k.reason})
		}
	}
	return out
}

// Every difference that is known is told to users.
func TestDifferencesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../COMPATIBILITY.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(raw)), " ")
	for _, k := range known() {
		if !strings.Contains(text, k.Reason) {
			t.Errorf("COMPATIBILITY.md does not say: %s", k.Reason)
		}
	}
}
