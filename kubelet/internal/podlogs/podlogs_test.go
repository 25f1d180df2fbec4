package podlogs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const sample = `2024-01-01T00:00:01.000000001Z stdout F one
2024-01-01T00:00:02Z stderr F two
torn
2024-01-01T00:00:03Z stdout P thr
2024-01-01T00:00:03Z stdout F ee
2024-01-01T00:00:04Z stdout F four
`

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, sample)
	since, _ := time.Parse(time.RFC3339, "2024-01-01T00:00:03Z")
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"all", Options{Tail: -1, Limit: -1}, "one\ntwo\nthree\nfour\n"},
		{"tail 1", Options{Tail: 1, Limit: -1}, "four\n"},
		{"tail 2", Options{Tail: 2, Limit: -1}, "ee\nfour\n"},
		{"tail 0", Options{Tail: 0, Limit: -1}, ""},
		{"tail beyond", Options{Tail: 100, Limit: -1}, "one\ntwo\nthree\nfour\n"},
		{"limit", Options{Tail: -1, Limit: 6}, "one\ntw"},
		{"since", Options{Tail: -1, Limit: -1, Since: since}, "three\nfour\n"},
		{"stream", Options{Tail: -1, Limit: -1, Stream: "stderr"}, "two\n"},
		{"timestamps", Options{Tail: -1, Limit: -1, Timestamps: true, Since: since}, "2024-01-01T00:00:03Z three\n2024-01-01T00:00:04Z four\n"},
	} {
		var b bytes.Buffer
		if err := Read(context.Background(), path, tc.o, &b, &b); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if b.String() != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, b.String(), tc.want)
		}
	}
}

// lineWriter sends every write on.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) { w <- string(b); return len(b), nil }

func TestFollowAcrossRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, "2024-01-01T00:00:01Z stdout F a\n")
	var done atomic.Bool
	out, ended := make(lineWriter, 10), make(chan error, 1)
	go func() {
		ended <- Read(t.Context(), path, Options{Tail: -1, Limit: -1, Follow: true, Done: func(context.Context) (bool, error) { return done.Load(), nil }}, out, out)
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-out:
			if got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no %q", want)
		}
	}
	expect("a\n")
	write(t, path, "2024-01-01T00:00:01Z stdout F b")
	write(t, path, "b\n")
	expect("bb\n")
	did, err := Rotate(t.Context(), path, 1, 3, time.Unix(0, 0), func(context.Context) error {
		write(t, path, "2024-01-01T00:00:01Z stdout F c\n")
		return nil
	})
	if err != nil || !did {
		t.Fatal(did, err)
	}
	expect("c\n")
	write(t, path, "2024-01-01T00:00:01Z stdout F last\n")
	done.Store(true)
	expect("last\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRotateKeepsFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	for i := range 6 {
		write(t, path, fmt.Sprintf("2024-01-01T00:00:01Z stdout F %d\n", i))
		did, err := Rotate(t.Context(), path, 10, 3, time.Unix(int64(i), 0), func(context.Context) error { write(t, path, ""); return nil })
		if err != nil || !did {
			t.Fatal(did, err)
		}
	}
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "0.log 0.log.19700101-000004.gz 0.log.19700101-000005"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if did, err := Rotate(t.Context(), path, 10, 3, time.Now(), nil); did || err != nil {
		t.Error("rotated an empty log")
	}
	write(t, path, strings.Repeat("x", 20))
	broken := errors.New("broken")
	if _, err := Rotate(t.Context(), path, 10, 3, time.Unix(9, 0), func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 20 {
		t.Error("the log was not moved back")
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if entries, _ = os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("%v left", entries)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parse(b); err == nil && len(l.text) > len(b) {
			t.Error("text longer than the line")
		}
	})
}
