package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func logChecks() []check {
	p := []Feature{Processes}
	return []check{
		{name: "LogFormat", needs: p, run: checkLogFormat},
		{name: "LogPartialLines", needs: p, run: checkLogPartial},
		{name: "LogAllOutput", needs: p, run: checkLogAll},
		{name: "LogReopen", needs: p, run: checkLogReopen},
		{name: "LogTTY", needs: []Feature{Processes, Streaming}, run: checkLogTTY},
	}
}

// logEntry is one line of CRI's log format.
type logEntry struct {
	time    time.Time
	stream  string
	partial bool
	content string
}

func parseLog(b []byte) ([]logEntry, error) {
	var out []logEntry
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break // being written
		}
		line := string(b[:i])
		b = b[i+1:]
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 {
			return nil, fmt.Errorf("log line %.80q has not four fields", line)
		}
		t, err := time.Parse(time.RFC3339Nano, f[0])
		if err != nil {
			return nil, fmt.Errorf("log line %.80q: %w", line, err)
		}
		if f[1] != "stdout" && f[1] != "stderr" {
			return nil, fmt.Errorf("log line %.80q: stream is %q", line, f[1])
		}
		tag, _, _ := strings.Cut(f[2], ":")
		if tag != "F" && tag != "P" {
			return nil, fmt.Errorf("log line %.80q: tag is %q", line, f[2])
		}
		out = append(out, logEntry{t, f[1], tag == "P", f[3]})
	}
	return out, nil
}

// logs puts the two streams together.
func (s *started) logs() (stdout, stderr string, err error) {
	b, err := os.ReadFile(s.logPath)
	if errors.Is(err, os.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	entries, err := parseLog(b)
	var out, errs strings.Builder
	for _, en := range entries {
		w := &out
		if en.stream == "stderr" {
			w = &errs
		}
		w.WriteString(en.content)
		if !en.partial {
			w.WriteByte('\n')
		}
	}
	return out.String(), errs.String(), err
}

func checkLogFormat(ctx context.Context, e *env) error {
	begin := time.Now().Add(-time.Second)
	s, err := e.run(ctx, nil, "print one", "sleep 20", "eprint two  spaces", "sleep 20", "print", "printn no newline")
	if err != nil {
		return err
	}
	if _, err := s.exited(ctx); err != nil {
		return err
	}
	b, err := os.ReadFile(s.logPath)
	if err != nil {
		return err
	}
	entries, err := parseLog(b)
	if err != nil {
		return err
	}
	want := []logEntry{{stream: "stdout", content: "one"}, {stream: "stderr", content: "two  spaces"}, {stream: "stdout"}, {stream: "stdout", content: "no newline"}}
	if len(entries) != len(want) {
		return fmt.Errorf("log has %d entries, want %d: %s", len(entries), len(want), b)
	}
	for i, en := range entries {
		if en.time.Before(begin) || en.time.After(time.Now().Add(time.Second)) {
			return fmt.Errorf("entry %d is of %v", i, en.time)
		}
		en.time, en.partial = time.Time{}, false
		if en != want[i] {
			return fmt.Errorf("entry %d is %+v, want %+v", i, en, want[i])
		}
	}
	return nil
}

func checkLogPartial(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "lines 2 40000", "print end")
	if err != nil {
		return err
	}
	if _, err := s.exited(ctx); err != nil {
		return err
	}
	b, err := os.ReadFile(s.logPath)
	if err != nil {
		return err
	}
	entries, err := parseLog(b)
	if err != nil {
		return err
	}
	partial := 0
	for _, en := range entries {
		if en.partial {
			partial++
		}
		if len(en.content) > 20000 {
			return fmt.Errorf("an entry has %d bytes, want long lines cut", len(en.content))
		}
	}
	out, _, err := s.logs()
	want := strings.Repeat(strings.Repeat("x", 40000)+"\n", 2) + "end\n"
	return errors.Join(err, expect("long lines are cut", partial >= 4, true), expect("put together they are whole", out == want, true))
}

func checkLogAll(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "lines 20000 50", "exit 0")
	if err != nil {
		return err
	}
	if _, err := s.exited(ctx); err != nil {
		return err
	}
	logged := func() error {
		out, _, err := s.logs()
		return errors.Join(err, expect("lines logged by the time the container is reported as ended", strings.Count(out, "\n"), 20000))
	}
	if !e.Lags {
		return logged()
	}
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return poll(soon, logged)
}

func checkLogReopen(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "print before", "trap")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	if err := os.Rename(s.logPath, s.logPath+".1"); err != nil {
		return err
	}
	if err := e.Runtime.ReopenContainerLog(ctx, s.id); err != nil {
		return err
	}
	if _, err := os.Stat(s.logPath); err != nil {
		return fmt.Errorf("after ReopenContainerLog: %w", err)
	}
	if err := e.Runtime.StopContainer(ctx, s.id, 10); err != nil {
		return err
	}
	out, _, err := s.logs()
	if err := errors.Join(err, expect("new log", out, "terminated\n")); err != nil {
		return err
	}
	if err := e.Runtime.ReopenContainerLog(ctx, s.id); err == nil {
		return errors.New("ReopenContainerLog of a container that has ended succeeded")
	}
	return nil
}

func checkLogTTY(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) { c.Tty, c.Stdin = true, true }, "print out", "eprint err", "tty", "trap")
	if err != nil {
		return err
	}
	return poll(ctx, func() error {
		out, errs, err := s.logs()
		if err != nil {
			return err
		}
		lines := strings.Split(strings.ReplaceAll(out, "\r\n", "\n"), "\n")
		if len(lines) < 4 || lines[0] != "out" || lines[1] != "err" || lines[2] == "not a tty" || errs != "" {
			return fmt.Errorf("log of a terminal is %q %q", out, errs)
		}
		return nil
	})
}
