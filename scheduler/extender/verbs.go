package extender

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	extenderv1 "k8s.io/kube-scheduler/extender/v1"

	"github.com/keelson/keelson/scheduler"
)

// args tells of a pod and nodes as the extender wants to hear it.
func (x *Extender) args(pod *corev1.Pod, nodes []*corev1.Node) *extenderv1.ExtenderArgs {
	args := &extenderv1.ExtenderArgs{Pod: pod}
	if x.opts.NodeCacheCapable {
		names := make([]string, len(nodes))
		for i, n := range nodes {
			names[i] = n.Name
		}
		args.NodeNames = &names
		return args
	}
	args.Nodes = &corev1.NodeList{Items: make([]corev1.Node, len(nodes))}
	for i, n := range nodes {
		args.Nodes.Items[i] = *n
	}
	return args
}

// Filter implements scheduler.Extender.
func (x *Extender) Filter(ctx context.Context, pod *corev1.Pod, nodes []*corev1.Node) (map[string]*scheduler.Rejection, error) {
	if x.opts.FilterVerb == "" {
		return nil, nil
	}
	var result extenderv1.ExtenderFilterResult
	if err := x.send(ctx, x.opts.FilterVerb, x.args(pod, nodes), &result); err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, errors.New(result.Error)
	}
	rejected := make(map[string]*scheduler.Rejection, len(nodes))
	for _, n := range nodes {
		why := &scheduler.Rejection{}
		if reason, ok := result.FailedAndUnresolvableNodes[n.Name]; ok {
			why = scheduler.Reject(reason)
		} else if reason, ok := result.FailedNodes[n.Name]; ok {
			why = scheduler.RejectFull(reason)
		} else {
			why.Reasons = []string{"node(s) were left out by extender " + x.url}
		}
		rejected[n.Name] = why
	}
	for _, name := range x.passed(&result) {
		if rejected[name] == nil {
			return nil, fmt.Errorf("extender %q claims a filtered node %q which is not found in the input node list", x.url, name)
		}
		rejected[name] = nil
	}
	for name, why := range rejected {
		if why == nil {
			delete(rejected, name)
		}
	}
	return rejected, nil
}

func (x *Extender) passed(result *extenderv1.ExtenderFilterResult) (names []string) {
	switch {
	case x.opts.NodeCacheCapable && result.NodeNames != nil:
		return *result.NodeNames
	case result.Nodes != nil:
		for i := range result.Nodes.Items {
			names = append(names, result.Nodes.Items[i].Name)
		}
	}
	return names
}

// Prioritize implements scheduler.Extender.
func (x *Extender) Prioritize(ctx context.Context, pod *corev1.Pod, nodes []*corev1.Node) (map[string]int64, error) {
	if x.opts.PrioritizeVerb == "" {
		return nil, nil
	}
	var result extenderv1.HostPriorityList
	if err := x.send(ctx, x.opts.PrioritizeVerb, x.args(pod, nodes), &result); err != nil {
		return nil, err
	}
	scores := make(map[string]int64, len(result))
	for _, p := range result {
		scores[p.Host] += p.Score * x.opts.Weight * (scheduler.MaxScore / extenderv1.MaxExtenderPriority)
	}
	return scores, nil
}

// Preempt implements scheduler.Preempter.
func (x *Extender) Preempt(ctx context.Context, pod *corev1.Pod, p *scheduler.Preemption) (*scheduler.Preemption, error) {
	if x.opts.PreemptVerb == "" || p.Node == "" {
		return p, nil
	}
	args := &extenderv1.ExtenderPreemptionArgs{Pod: pod}
	if x.opts.NodeCacheCapable {
		victims := &extenderv1.MetaVictims{Pods: []*extenderv1.MetaPod{}, NumPDBViolations: int64(p.PDBViolations)}
		for _, v := range p.Victims {
			victims.Pods = append(victims.Pods, &extenderv1.MetaPod{UID: string(v.Object.UID)})
		}
		args.NodeNameToMetaVictims = map[string]*extenderv1.MetaVictims{p.Node: victims}
	} else {
		victims := &extenderv1.Victims{Pods: []*corev1.Pod{}, NumPDBViolations: int64(p.PDBViolations)}
		for _, v := range p.Victims {
			victims.Pods = append(victims.Pods, v.Object)
		}
		args.NodeNameToVictims = map[string]*extenderv1.Victims{p.Node: victims}
	}
	var result extenderv1.ExtenderPreemptionResult
	if err := x.send(ctx, x.opts.PreemptVerb, args, &result); err != nil {
		return nil, err
	}
	kept := result.NodeNameToMetaVictims[p.Node]
	if kept == nil {
		return nil, nil
	}
	out := &scheduler.Preemption{Node: p.Node, PDBViolations: int(kept.NumPDBViolations), Plugin: p.Plugin}
	byUID := map[string]*scheduler.Pod{}
	for _, v := range p.Victims {
		byUID[string(v.Object.UID)] = v
	}
	for _, meta := range kept.Pods {
		if meta == nil || byUID[meta.UID] == nil {
			return nil, fmt.Errorf("extender: %v claims to preempt pod (UID: %v) on node: %v, but the pod is not found among the victims", x.url, meta, p.Node)
		}
		out.Victims = append(out.Victims, byUID[meta.UID])
	}
	return out, nil
}

// Bind implements scheduler.Binder.
func (x *Extender) Bind(ctx context.Context, pod *corev1.Pod, node string) (handled bool, err error) {
	if x.opts.BindVerb == "" || !x.Interested(pod) {
		return false, nil
	}
	var result extenderv1.ExtenderBindingResult
	args := &extenderv1.ExtenderBindingArgs{PodName: pod.Name, PodNamespace: pod.Namespace, PodUID: pod.UID, Node: node}
	if err := x.send(ctx, x.opts.BindVerb, args, &result); err != nil {
		return true, err
	}
	if result.Error != "" {
		return true, errors.New(result.Error)
	}
	return true, nil
}
