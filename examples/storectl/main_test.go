package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ctl runs a command and returns what it prints.
func ctl(t *testing.T, args ...string) string {
	t.Helper()
	var out, diag bytes.Buffer
	if err := run(t.Context(), args, strings.NewReader("from standard input"), &out, &diag); err != nil {
		t.Fatalf("%q: %v\n%s", args, err, &diag)
	}
	return out.String()
}

func refused(t *testing.T, args ...string) string {
	t.Helper()
	err := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard)
	if err == nil {
		t.Fatalf("%q gives no error", args)
	}
	return err.Error()
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	a, b, snap := "bolt="+filepath.Join(dir, "a"), "bolt="+filepath.Join(dir, "b"), filepath.Join(dir, "snap")
	ctl(t, "put", "-store", a, "/x/1", "one")
	ctl(t, "put", "-store", a, "/x/2", "-")
	ctl(t, "put", "-store", a, "/y", "other")
	ctl(t, "delete", "-store", a, "/y")
	if got := ctl(t, "get", "-store", a, "/x/2"); got != "from standard input" {
		t.Errorf("get prints %q", got)
	}
	if got, want := ctl(t, "list", "-store", a, "-prefix", "/x/", "-values"), "/x/1\tcreated 2\tmodified 2\t3 bytes\t\"one\"\n"; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 {
		t.Errorf("list prints %q", got)
	}
	saved := ctl(t, "snapshot", "-store", a, "-o", snap)
	if got := ctl(t, "verify", "-i", snap); got != saved || !strings.HasPrefix(got, "revision 5, 2 keys, ") {
		t.Errorf("verify prints %q after %q", got, saved)
	}
	ctl(t, "restore", "-store", b, "-i", snap)
	if got := ctl(t, "compare", "-from", a, "-to", b); got != "2 keys are the same\n" {
		t.Errorf("compare prints %q", got)
	}
	if got := ctl(t, "put", "-store", b, "/x/3", "v"); got != "revision 1000000006\n" {
		t.Errorf("the first put after restoring prints %q", got)
	}
	if got := refused(t, "compare", "-from", a, "-to", b); !strings.Contains(got, `"/x/3"`) {
		t.Error(got)
	}
	ctl(t, "copy", "-from", b, "-to", "bolt="+filepath.Join(dir, "c"))
	ctl(t, "compare", "-from", b, "-to", "bolt="+filepath.Join(dir, "c"))
	ctl(t, "compact", "-store", a)

	content, err := os.ReadFile(snap)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(snap, content, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "fresh")
	refused(t, "restore", "-store", "bolt="+fresh, "-i", snap)
	if _, err := os.Stat(fresh); err == nil {
		t.Error("restoring a damaged snapshot has made a store")
	}
	for _, args := range [][]string{
		{},
		{"nonsense"},
		{"get"},
		{"get", "-store", a},
		{"get", "-store", a, "nothing"},
		{"list", "-store", "x=y"},
		{"list", "-store", "bolt=" + filepath.Join(dir, "absent")},
		{"snapshot", "-store", a},
		{"delete", "-store", a, "absent"},
	} {
		refused(t, args...)
	}
	for want, args := range map[string][]string{
		"put takes KEY VALUE":                         {"put", "-store", a, "/x/1"},
		"list takes nothing":                          {"list", "-store", a, "/x/1"},
		"there is no store":                           {"list"},
		"-i is empty":                                 {"verify"},
		"-o is empty":                                 {"snapshot", "-store", a},
		"flag provided but not defined: -prefix":      {"snapshot", "-store", a, "-o", snap, "-prefix", "/x"}, // not a part without saying so
		"does not begin like one":                     {"verify", "-i", filepath.Join(dir, "a")},
		`the store is not empty, it has "/x/1"`:       {"copy", "-from", b, "-to", a},
		"-to: there is no store":                      {"copy", "-from", b},
		"-from: stat " + filepath.Join(dir, "absent"): {"copy", "-from", "bolt=" + filepath.Join(dir, "absent"), "-to", a},
		"future revision":                             {"compact", "-store", a, "-revision", "1000"},
	} {
		if got := refused(t, args...); !strings.Contains(got, want) {
			t.Errorf("%q is refused with %q, want %q in it", args, got, want)
		}
	}
	for _, help := range []string{"help", "-h", "--help"} {
		if got := ctl(t, help); got != usage {
			t.Errorf("%s prints %q", help, got)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("files are left behind: %v, %v", entries, err)
	}
}

// A store that is served is a store for another storectl.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"serve", "-store", "memory", "-listen", "127.0.0.1:0"}, nil, pw, io.Discard)
		pw.Close()
	}()
	buf := make([]byte, 100)
	n, err := pr.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_, url, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	etcd := "etcd=" + url
	ctl(t, "put", "-store", etcd, "-key-prefix", "/p", "/a", "1")
	if got := ctl(t, "list", "-store", etcd); !strings.HasPrefix(got, "/p/a\tcreated 2") {
		t.Errorf("list prints %q", got)
	}
	local := "bolt=" + filepath.Join(t.TempDir(), "local")
	ctl(t, "copy", "-from", etcd, "-to", local)
	if got := ctl(t, "get", "-store", local, "/p/a"); got != "1" {
		t.Errorf("get prints %q", got)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("serve does not end")
	}
}
