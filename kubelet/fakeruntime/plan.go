package fakeruntime

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet"
)

// Prefix is that of the annotations that say how a pod's containers behave.
const Prefix = "fakeruntime.keelson.dev/"

// plan is what a container will do.
type plan struct {
	ends       bool
	runTime    time.Duration
	exitCode   int32
	oom        bool
	startDelay time.Duration
	stopDelay  time.Duration
	logLines   int
	failProbe  string
	cpu        int64 // thousandths of a core
	memory     int64 // bytes
}

func (p *plan) reason() string {
	if p.oom {
		return "OOMKilled"
	}
	return ""
}

func makePlan(s *sandbox, config *runtimeapi.ContainerConfig, jobRunTime time.Duration) (plan, error) {
	p := plan{cpu: 1, memory: 1 << 20}
	name, role := config.Metadata.Name, config.Annotations[kubelet.AnnotationContainerRole]
	main := role == "" || role == "main"
	switch {
	case role == "init":
		p.ends = true
	case main && (s.labels["batch.kubernetes.io/job-name"] != "" || s.labels["job-name"] != ""):
		p.ends, p.runTime = true, jobRunTime
	}
	get := func(key string) string {
		if v, ok := config.Annotations[Prefix+key]; ok {
			return v
		}
		if v, ok := s.annotations[Prefix+key+"."+name]; ok {
			return v
		}
		if main {
			return s.annotations[Prefix+key]
		}
		return ""
	}
	var err error
	parse := func(key string, set func(string) error) {
		if v := get(key); v != "" && err == nil {
			if e := set(v); e != nil {
				err = fmt.Errorf("annotation %s%s: %w", Prefix, key, e)
			}
		}
	}
	duration := func(d *time.Duration) func(string) error {
		return func(v string) (err error) {
			*d, err = time.ParseDuration(v)
			return err
		}
	}
	parse("run-time", func(v string) error { p.ends = true; return duration(&p.runTime)(v) })
	parse("exit-code", func(v string) error {
		n, err := strconv.ParseUint(v, 10, 8)
		p.exitCode = int32(n)
		return err
	})
	parse("oom", func(v string) (err error) {
		if p.oom, err = strconv.ParseBool(v); p.oom && p.exitCode == 0 {
			p.exitCode = 137
		}
		return err
	})
	parse("start-delay", duration(&p.startDelay))
	parse("stop-delay", duration(&p.stopDelay))
	parse("log-lines", func(v string) (err error) { p.logLines, err = strconv.Atoi(v); return err })
	parse("fail-probe", func(v string) error { p.failProbe = v; _, err := failsProbe(v, "", 0); return err })
	quantity := func(set func(resource.Quantity)) func(string) error {
		return func(v string) error {
			q, err := resource.ParseQuantity(v)
			if err == nil {
				set(q)
			}
			return err
		}
	}
	parse("cpu", quantity(func(q resource.Quantity) { p.cpu = q.MilliValue() }))
	parse("memory", quantity(func(q resource.Quantity) { p.memory = q.Value() }))
	return p, err
}

// failsProbe tells if a probe of a kind fails, given how long the container has run.
func failsProbe(list, kind string, ran time.Duration) (bool, error) {
	for item := range strings.SplitSeq(list, ",") {
		name, from, found := strings.Cut(strings.TrimSpace(item), "=")
		var after time.Duration
		if found {
			var err error
			if after, err = time.ParseDuration(from); err != nil {
				return false, err
			}
		}
		if kind != "" && strings.EqualFold(name, kind) && ran >= after {
			return true, nil
		}
	}
	return false, nil
}

func (c *container) logFile() string { return filepath.Join(c.sandbox.logDir, c.logPath) }

// writeLog appends lines to the container's log in CRI's format, making it if need be.
func (c *container) writeLog(now time.Time, lines int) error {
	path := c.logFile()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for i := range lines {
		fmt.Fprintf(w, "%s stdout F %s line %d\n", now.UTC().Format(time.RFC3339Nano), c.meta.Name, i+1)
	}
	err = w.Flush()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
