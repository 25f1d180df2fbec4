package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	utilexec "k8s.io/utils/exec"
)

func execChecks() []check {
	p := []Feature{Processes}
	return []check{
		{name: "ExecSync", needs: p, run: checkExecSync},
		{name: "ExecSyncTimeout", needs: p, run: checkExecTimeout},
		{name: "ExecSyncEnvironment", needs: p, run: checkExecEnvironment},
		{name: "ExecSyncUser", needs: []Feature{Processes, Users}, run: checkExecUser},
		{name: "ExecSyncPIDs", needs: []Feature{Processes, PIDs}, run: checkExecPIDs},
		{name: "ExecSyncFiles", needs: []Feature{Processes, Filesystem}, run: checkExecFiles},
		{name: "ExecSyncNotRunning", needs: p, run: checkExecNotRunning},
		{name: "ExecSyncManyAtOnce", needs: p, run: checkExecMany},
	}
}

func checkExecSync(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	out, errOut, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "print to stdout", "eprint to stderr"}, 10*time.Second)
	if err := errors.Join(err, expect("stdout", string(out), "to stdout\n"), expect("stderr", string(errOut), "to stderr\n")); err != nil {
		return err
	}
	out, _, err = e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "print before", "exit 7"}, 10*time.Second)
	var exit utilexec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("a non-zero exit gives %T %w, want an ExitError", err, err)
	}
	if err := errors.Join(expect("exit status", exit.ExitStatus(), 7), expect("output with it", string(out), "before\n")); err != nil {
		return err
	}
	_, _, err = e.Runtime.ExecSync(ctx, s.id, []string{"/no/such/program"}, 10*time.Second)
	if err == nil {
		return errors.New("executing a program that is not there succeeded")
	}
	out, _, err = e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "lines 5000 100"}, 10*time.Second)
	return errors.Join(err, expect("bytes of a large output", len(out), 5000*101))
}

func checkExecTimeout(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	begin := time.Now()
	_, _, err = e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "sleep 60000"}, time.Second)
	took := time.Since(begin)
	var exit utilexec.ExitError
	if err == nil || errors.As(err, &exit) {
		return fmt.Errorf("a timeout gives %T %w, want an error that is no exit", err, err)
	}
	if took > 10*time.Second || ctx.Err() != nil {
		return fmt.Errorf("a timeout of a second took %v", took)
	}
	st, err := s.status(ctx)
	return errors.Join(err, expect("container after the timeout", st.GetState(), runtimeapi.ContainerState_CONTAINER_RUNNING))
}

func checkExecEnvironment(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Envs = []*runtimeapi.KeyValue{{Key: "MINE", Value: []byte("value")}}
	}, "trap")
	if err != nil {
		return err
	}
	out, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "env MINE"}, 10*time.Second)
	return errors.Join(err, expect("environment", string(out), "value\n"))
}

func checkExecUser(ctx context.Context, e *env) error {
	s, err := e.run(ctx, func(_ *runtimeapi.PodSandboxConfig, c *runtimeapi.ContainerConfig) {
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1234}
	}, "trap")
	if err != nil {
		return err
	}
	out, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "id"}, 10*time.Second)
	return errors.Join(err, expect("user", strings.HasPrefix(string(out), "1234 0 "), true))
}

func checkExecPIDs(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	out, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "cat /proc/1/cmdline"}, 10*time.Second)
	return errors.Join(err, expect("first process", string(out), "/workload\x00trap\x00"))
}

func checkExecFiles(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "write /mine from the container", "trap")
	if err != nil {
		return err
	}
	if err := s.printed(ctx, "ready"); err != nil {
		return err
	}
	out, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "cat /mine"}, 10*time.Second)
	return errors.Join(err, expect("file of the container", string(out), "from the container\n"))
}

func checkExecNotRunning(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "exit 0")
	if err != nil {
		return err
	}
	if _, err := s.exited(ctx); err != nil {
		return err
	}
	if _, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "exit 0"}, 10*time.Second); err == nil {
		return errors.New("ExecSync in a container that has ended succeeded")
	}
	return nil
}

func checkExecMany(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "trap")
	if err != nil {
		return err
	}
	const n = 8
	errs := make(chan error, n)
	for i := range n {
		go func() {
			text := fmt.Sprintf("number %d", i)
			out, _, err := e.Runtime.ExecSync(ctx, s.id, []string{"/workload", "print " + text}, 20*time.Second)
			errs <- errors.Join(err, expect("output", string(out), text+"\n"))
		}()
	}
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
