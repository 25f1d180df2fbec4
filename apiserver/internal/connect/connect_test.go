package connect

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestContainerOf(t *testing.T) {
	list := func(names ...string) (l []corev1.Container) {
		for _, n := range names {
			l = append(l, corev1.Container{Name: n})
		}
		return l
	}
	for name, tc := range map[string]struct {
		spec          corev1.PodSpec
		ask, want, no string
	}{
		"only":      {corev1.PodSpec{Containers: list("a")}, "", "a", ""},
		"named":     {corev1.PodSpec{Containers: list("a", "b")}, "b", "b", ""},
		"init":      {corev1.PodSpec{Containers: list("a"), InitContainers: list("i")}, "i", "i", ""},
		"ephemeral": {corev1.PodSpec{EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}}}}, "e", "e", ""},
		"ambiguous": {corev1.PodSpec{Containers: list("a", "b"), InitContainers: list("i", "j")}, "", "", "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i j]"},
		"none":      {corev1.PodSpec{}, "", "", "a container name must be specified for pod p"},
		"unknown":   {corev1.PodSpec{Containers: list("a")}, "x", "", "container x is not valid for pod p"},
	} {
		got, err := containerOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: tc.spec}, tc.ask)
		if got != tc.want || (err == nil) != (tc.no == "") || err != nil && err.Error() != tc.no {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestLogOptions(t *testing.T) {
	for q, want := range map[string]string{
		"follow=true&tailLines=3": "follow=true&tailLines=3",
		"follow":                  "follow=true",
		"follow=0&previous=false": "",
		"container=x&sinceTime=2026-01-02T03:04:05Z": "sinceTime=2026-01-02T03%3A04%3A05Z",
		"tailLines=x":         `!strconv.ParseInt: parsing "x": invalid syntax`,
		"sinceTime=yesterday": `!parsing time "yesterday"`,
		"limitBytes=0":        "!limitBytes: Invalid value: 0: must be greater than 0",
		"sinceSeconds=0":      "!sinceSeconds: Invalid value: 0: must be greater than 0",
		"sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z": "!at most one of `sinceTime` or `sinceSeconds` may be specified",
		"stream=Sideways":                                  `!stream: Unsupported value: "Sideways": supported values: "All", "Stdout", "Stderr"`,
		"stream=Stdout&tailLines=1":                        "!`tailLines` and specific `stream` are mutually exclusive for now",
		"stream=Stderr&timestamps=1&limitBytes=1&pretty=1": "limitBytes=1&stream=Stderr&timestamps=true",
	} {
		v, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		o, err := logOptions(v, "p")
		if no, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), no) {
				t.Errorf("%s: %v, want %s", q, err, no)
			}
			continue
		}
		if got := logQuery(o).Encode(); err != nil || got != want {
			t.Errorf("%s: %v %q, want %q", q, err, got, want)
		}
	}
}

func TestRewriteLink(t *testing.T) {
	target := &url.URL{Scheme: "http", Host: "10.0.0.1:80"}
	const prefix = "/api/v1/namespaces/d/pods/p/proxy"
	for in, want := range map[string]string{
		"/a":                      prefix + "/a",
		"/a/":                     prefix + "/a/",
		"/":                       prefix + "/",
		"/a?b=c#d":                prefix + "/a?b=c#d",
		"a":                       "a",
		"?x":                      "?x",
		"#x":                      "#x",
		"http://10.0.0.1:80/a":    prefix + "/a",
		"http://other.example/a":  "http://other.example/a",
		"//other.example/a":       "//other.example/a",
		"mailto:a@b":              "mailto:a@b",
		prefix + "/a":             prefix + "/a",
		"http://[::1":             "http://[::1",
		"javascript:alert('/x/')": "javascript:alert('/x/')",
	} {
		if got := rewriteLink(in, target, prefix); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestProxyable(t *testing.T) {
	strict, err := New(Options{Reader: fake.NewClientBuilder().Build()})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := New(Options{Reader: fake.NewClientBuilder().Build(), AllowLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"10.1.2.3": true, "fd00::1": true, "127.0.0.1": false, "::1": false, "169.254.169.254": false, "fe80::1": false, "0.0.0.0": false, "224.0.0.1": false, "": false, "name": false,
	} {
		if ok := strict.proxyable(host) == nil; ok != want {
			t.Errorf("%q: %v", host, ok)
		}
	}
	if loose.proxyable("127.0.0.5") != nil || loose.proxyable("169.254.169.254") == nil {
		t.Error("AllowLoopback allows the wrong addresses")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no reader was accepted")
	}
}

func FuzzRewriteHTML(f *testing.F) {
	f.Add(`<a href="/x">y</a><script>if (a<b) {}</script><!-- c --><img src=/q>`)
	f.Add("<a\xff href=/\x00>")
	target := &url.URL{Scheme: "http", Host: "h"}
	f.Fuzz(func(t *testing.T, page string) {
		var out bytes.Buffer
		if err := rewriteHTML(&out, strings.NewReader(page), target, "/proxy"); err != nil {
			return
		}
		if !strings.Contains(page, "/") && out.String() != page {
			t.Errorf("%q became %q without any link to change", page, out.String())
		}
	})
}
