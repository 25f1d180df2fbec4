package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func adoptChecks() []check {
	return []check{{name: "Restart", run: checkRestart}}
}

// checkRestart: pods outlive the program, and what ended while nobody looked has its exit code.
func checkRestart(ctx context.Context, e *env) error {
	if e.Instance.Restart == nil {
		return skipError("pods don't outlive the runtime")
	}
	pod, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	stays, err := e.start(ctx, pod, pc, e.containerConfig("stays", "trap"))
	if err != nil {
		return err
	}
	ends, err := e.start(ctx, pod, pc, e.containerConfig("ends", "sleep 300", "print last words", "exit 9"))
	if err != nil {
		return err
	}
	created, err := e.Runtime.CreateContainer(ctx, pod, e.containerConfig("created", "print late", "exit 0"), pc)
	if err != nil {
		return err
	}
	before, err := stays.status(ctx)
	if err != nil {
		return err
	}
	fresh := e.Instance.Restart(e.t)
	fresh.LogDir = e.LogDir
	e.Instance, e.restarted = fresh, fresh
	after, err := stays.status(ctx)
	if err != nil {
		return fmt.Errorf("of a container that was running: %w", err)
	}
	if err := errors.Join(expect("state", after.State, runtimeapi.ContainerState_CONTAINER_RUNNING), expect("start time", after.StartedAt, before.StartedAt)); err != nil {
		return err
	}
	st, err := ends.exited(ctx)
	if err != nil {
		return err
	}
	out, _, err := ends.logs()
	if err := errors.Join(err, expect("exit code of what ended meanwhile", st.ExitCode, 9), expect("its log", out, "last words\n")); err != nil {
		return err
	}
	if _, _, err := e.Runtime.ExecSync(ctx, stays.id, []string{"/workload", "print x"}, 10*time.Second); err != nil {
		return fmt.Errorf("ExecSync after the restart: %w", err)
	}
	if err := e.Runtime.StartContainer(ctx, created); err != nil {
		return fmt.Errorf("starting what was created before: %w", err)
	}
	if err := e.Runtime.StopContainer(ctx, stays.id, 10); err != nil {
		return err
	}
	after, err = stays.status(ctx)
	return errors.Join(err, expect("exit code after StopContainer", after.GetExitCode(), 0))
}
