package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func sandboxChecks() []check {
	return []check{
		{name: "Version", run: checkVersion},
		{name: "Status", run: checkStatus},
		{name: "SandboxLifeCycle", run: checkSandboxLifeCycle},
		{name: "SandboxIdempotence", run: checkSandboxIdempotence},
		{name: "SandboxMetadata", run: checkSandboxMetadata},
		{name: "SandboxFilter", run: checkSandboxFilter},
		{name: "SandboxStopEndsContainers", run: checkSandboxStop},
		{name: "SandboxRemoveTakesContainers", run: checkSandboxRemove},
		{name: "UnknownIDs", run: checkUnknownIDs},
		{name: "ImageStatus", run: checkImageStatus},
		{name: "NothingLeft", needs: []Feature{Processes}, run: checkNothingLeft},
	}
}

func checkVersion(ctx context.Context, e *env) error {
	v, err := e.Runtime.Version(ctx, "")
	if err != nil {
		return err
	}
	if v.RuntimeName == "" || v.RuntimeVersion == "" {
		return fmt.Errorf("version without name or version: %v", v)
	}
	return expect("RuntimeApiVersion", v.RuntimeApiVersion, "v1")
}

func checkStatus(ctx context.Context, e *env) error {
	s, err := e.Runtime.Status(ctx, false)
	if err != nil {
		return err
	}
	for _, c := range s.GetStatus().GetConditions() {
		if c.Type == runtimeapi.RuntimeReady {
			if !c.Status {
				return fmt.Errorf("the runtime is not ready: %s", c.Message)
			}
			return nil
		}
	}
	return errors.New("no RuntimeReady condition")
}

func (e *env) sandboxState(ctx context.Context, id string) (runtimeapi.PodSandboxState, error) {
	resp, err := e.Runtime.PodSandboxStatus(ctx, id, false)
	if err != nil {
		return 0, err
	}
	return resp.Status.State, nil
}

func checkSandboxLifeCycle(ctx context.Context, e *env) error {
	id, _, err := e.pod(ctx)
	if err != nil {
		return err
	}
	st, err := e.sandboxState(ctx, id)
	if err := errors.Join(err, expect("state after RunPodSandbox", st, runtimeapi.PodSandboxState_SANDBOX_READY)); err != nil {
		return err
	}
	if err := e.Runtime.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	st, err = e.sandboxState(ctx, id)
	if err := errors.Join(err, expect("state after StopPodSandbox", st, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)); err != nil {
		return err
	}
	if err := e.Runtime.RemovePodSandbox(ctx, id); err != nil {
		return err
	}
	_, err = e.sandboxState(ctx, id)
	return expect("code of PodSandboxStatus after RemovePodSandbox", status.Code(err), codes.NotFound)
}

func checkSandboxIdempotence(ctx context.Context, e *env) error {
	id, pc, err := e.pod(ctx)
	if err != nil {
		return err
	}
	if again, err := e.Runtime.RunPodSandbox(ctx, pc, ""); err == nil {
		e.sandboxes = append(e.sandboxes, again)
		return errors.New("RunPodSandbox twice for one attempt succeeded")
	}
	for range 2 {
		if err := e.Runtime.StopPodSandbox(ctx, id); err != nil {
			return fmt.Errorf("StopPodSandbox again: %w", err)
		}
	}
	for range 2 {
		if err := e.Runtime.RemovePodSandbox(ctx, id); err != nil {
			return fmt.Errorf("RemovePodSandbox again: %w", err)
		}
	}
	// The name is free again, and so is the next attempt.
	for range 2 {
		id, err := e.Runtime.RunPodSandbox(ctx, pc, "")
		if err != nil {
			return fmt.Errorf("RunPodSandbox after removal: %w", err)
		}
		e.sandboxes = append(e.sandboxes, id)
		pc.Metadata.Attempt++
	}
	return nil
}

func checkSandboxMetadata(ctx context.Context, e *env) error {
	id, pc, err := e.pod(ctx, func(c *runtimeapi.PodSandboxConfig) { c.Metadata.Attempt = 7 })
	if err != nil {
		return err
	}
	resp, err := e.Runtime.PodSandboxStatus(ctx, id, true)
	if err != nil {
		return err
	}
	st := resp.Status
	err = errors.Join(
		expect("id", st.Id, id),
		expect("metadata", st.Metadata.String(), pc.Metadata.String()),
		expect("labels are kept", maps.Equal(st.Labels, pc.Labels), true),
		expect("annotations are kept", maps.Equal(st.Annotations, pc.Annotations), true),
		expect("has a creation time", st.CreatedAt > 0, true))
	list, listErr := e.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{Id: id})
	if err := errors.Join(err, listErr, expect("number listed by id", len(list), 1)); err != nil {
		return err
	}
	return errors.Join(
		expect("listed metadata", list[0].Metadata.String(), pc.Metadata.String()),
		expect("listed labels are kept", maps.Equal(list[0].Labels, pc.Labels), true),
		expect("listed annotations are kept", maps.Equal(list[0].Annotations, pc.Annotations), true),
		expect("listed creation time", list[0].CreatedAt, st.CreatedAt))
}

func checkSandboxFilter(ctx context.Context, e *env) error {
	a, _, err := e.pod(ctx, func(c *runtimeapi.PodSandboxConfig) { c.Labels["which"], c.Labels["filter"] = "a", "x" })
	if err != nil {
		return err
	}
	b, _, err := e.pod(ctx, func(c *runtimeapi.PodSandboxConfig) { c.Labels["which"], c.Labels["filter"] = "b", "x" })
	if err != nil {
		return err
	}
	if err := e.Runtime.StopPodSandbox(ctx, b); err != nil {
		return err
	}
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	notReady := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_NOTREADY}
	sel := map[string]string{"filter": "x"}
	for _, c := range []struct {
		name string
		f    *runtimeapi.PodSandboxFilter
		want map[string]bool
	}{
		{"all of the label", &runtimeapi.PodSandboxFilter{LabelSelector: sel}, map[string]bool{a: true, b: true}},
		{"ready", &runtimeapi.PodSandboxFilter{LabelSelector: sel, State: ready}, map[string]bool{a: true}},
		{"not ready", &runtimeapi.PodSandboxFilter{LabelSelector: sel, State: notReady}, map[string]bool{b: true}},
		{"two labels", &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"filter": "x", "which": "b"}}, map[string]bool{b: true}},
		{"id and label that don't agree", &runtimeapi.PodSandboxFilter{Id: a, LabelSelector: map[string]string{"which": "b"}}, map[string]bool{}},
		{"unknown id", &runtimeapi.PodSandboxFilter{Id: "nosuchsandbox"}, map[string]bool{}},
	} {
		list, err := e.Runtime.ListPodSandbox(ctx, c.f)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		got := make(map[string]bool)
		for _, s := range list {
			got[s.Id] = true
		}
		if !maps.Equal(got, c.want) {
			return fmt.Errorf("filter %s finds %v, want %v (a %s, b %s)", c.name, got, c.want, a, b)
		}
	}
	return nil
}

func checkSandboxStop(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "ignore")
	if err != nil {
		return err
	}
	if err := e.Runtime.StopPodSandbox(ctx, s.pod); err != nil {
		return err
	}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	if err := expect("container after StopPodSandbox", st.State, runtimeapi.ContainerState_CONTAINER_EXITED); err != nil {
		return err
	}
	if _, err := e.Runtime.CreateContainer(ctx, s.pod, e.containerConfig("late", "exit 0"), s.podConf); err == nil {
		return errors.New("CreateContainer in a stopped sandbox succeeded")
	}
	return nil
}

func checkSandboxRemove(ctx context.Context, e *env) error {
	s, err := e.run(ctx, nil, "ignore")
	if err != nil {
		return err
	}
	if err := e.Runtime.StopPodSandbox(ctx, s.pod); err != nil {
		return err
	}
	if err := e.Runtime.RemovePodSandbox(ctx, s.pod); err != nil {
		return err
	}
	list, err := e.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: s.pod})
	return errors.Join(err, expect("containers of a removed sandbox", len(list), 0))
}

func checkUnknownIDs(ctx context.Context, e *env) error {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	var errs []error
	gone := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of what is not there: %w", what, err))
		}
	}
	gone("StopPodSandbox", e.Runtime.StopPodSandbox(ctx, id))
	gone("RemovePodSandbox", e.Runtime.RemovePodSandbox(ctx, id))
	gone("RemoveContainer", e.Runtime.RemoveContainer(ctx, id))
	missing := func(what string, err error) {
		errs = append(errs, expect("code of "+what+" of an unknown id", status.Code(err), codes.NotFound))
	}
	_, err := e.Runtime.PodSandboxStatus(ctx, id, false)
	missing("PodSandboxStatus", err)
	_, err = e.Runtime.ContainerStatus(ctx, id, false)
	missing("ContainerStatus", err)
	if err := e.Runtime.StartContainer(ctx, id); err == nil {
		errs = append(errs, errors.New("StartContainer of an unknown id succeeded"))
	}
	if _, err := e.Runtime.CreateContainer(ctx, id, e.containerConfig("x", "exit 0"), e.podConfig()); err == nil {
		errs = append(errs, errors.New("CreateContainer in an unknown sandbox succeeded"))
	}
	return errors.Join(errs...)
}

func checkImageStatus(ctx context.Context, e *env) error {
	resp, err := e.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: e.Image}, false)
	if err != nil {
		return err
	}
	if resp.Image == nil {
		return fmt.Errorf("image %s is not there", e.Image)
	}
	byID, err := e.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: resp.Image.Id}, false)
	if err != nil {
		return err
	}
	if err := expect("image found by its id", byID.GetImage().GetId(), resp.Image.Id); err != nil {
		return err
	}
	list, err := e.Images.ListImages(ctx, nil)
	if err != nil {
		return err
	}
	found := false
	for _, i := range list {
		found = found || i.Id == resp.Image.Id
	}
	missing, err := e.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: "localhost/no/such/image:1"}, false)
	return errors.Join(err, expect("image is listed", found, true), expect("an image that is not there is nil", missing.GetImage() == nil, true),
		e.Images.RemoveImage(ctx, &runtimeapi.ImageSpec{Image: "localhost/no/such/image:1"}))
}

func checkNothingLeft(ctx context.Context, e *env) error {
	if e.Leftovers == nil {
		return skipError("what is left can't be known")
	}
	for _, commands := range [][]string{{"child", "ignore"}, {"exit 3"}} {
		s, err := e.run(ctx, nil, commands...)
		if err != nil {
			return err
		}
		if len(commands) > 1 {
			if err := s.printed(ctx, "ready"); err != nil {
				return err
			}
		}
		if err := e.Runtime.StopPodSandbox(ctx, s.pod); err != nil {
			return err
		}
		if err := e.Runtime.RemovePodSandbox(ctx, s.pod); err != nil {
			return err
		}
	}
	return poll(ctx, func() error {
		if left := e.Leftovers(); len(left) > 0 {
			return fmt.Errorf("left after removal: %q", left)
		}
		return nil
	})
}
