package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// verdict is what a job's pod failure policy says of a failed pod.
type verdict struct {
	action  batchv1.PodFailurePolicyAction // empty: no rule matched
	message string                         // for FailJob
}

func (v verdict) counts() bool { return v.action != batchv1.PodFailurePolicyActionIgnore }

func judge(policy *batchv1.PodFailurePolicy, p *corev1.Pod) verdict {
	if policy == nil {
		return verdict{}
	}
	for i, rule := range policy.Rules {
		var matched bool
		var message string
		switch {
		case rule.OnExitCodes != nil:
			if s := matchExitCodes(&p.Status, rule.OnExitCodes); s != nil {
				matched = true
				message = fmt.Sprintf("Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d",
					s.Name, p.Namespace, p.Name, s.State.Terminated.ExitCode, rule.Action, i)
			}
		case rule.OnPodConditions != nil:
			if c := matchConditions(&p.Status, rule.OnPodConditions); c != nil {
				matched = true
				message = fmt.Sprintf("Pod %s/%s has condition %v matching %v rule at index %d", p.Namespace, p.Name, c.Type, rule.Action, i)
			}
		}
		if matched {
			return verdict{action: rule.Action, message: message}
		}
	}
	return verdict{}
}

func matchExitCodes(s *corev1.PodStatus, r *batchv1.PodFailurePolicyOnExitCodesRequirement) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses} {
		for i := range list {
			t := list[i].State.Terminated
			if t == nil || t.ExitCode == 0 || r.ContainerName != nil && *r.ContainerName != list[i].Name {
				continue
			}
			in := slices.Contains(r.Values, t.ExitCode)
			if in == (r.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
				return &list[i]
			}
		}
	}
	return nil
}

func matchConditions(s *corev1.PodStatus, patterns []batchv1.PodFailurePolicyOnPodConditionsPattern) *corev1.PodCondition {
	for i := range s.Conditions {
		c := &s.Conditions[i]
		for _, p := range patterns {
			want := p.Status
			if want == "" {
				want = corev1.ConditionTrue
			}
			if p.Type == c.Type && want == c.Status {
				return c
			}
		}
	}
	return nil
}

// matchSuccess returns the first rule of a success policy that holds.
func matchSuccess(policy *batchv1.SuccessPolicy, completions int, done *indexes) (string, bool) {
	if policy == nil || done.len() == 0 {
		return "", false
	}
	for i, rule := range policy.Rules {
		message := fmt.Sprintf("Matched rules at index %d", i)
		if rule.SucceededIndexes == nil {
			if rule.SucceededCount != nil && done.len() >= int(*rule.SucceededCount) {
				return message, true
			}
			continue
		}
		wanted := parseIndexes(*rule.SucceededIndexes, completions)
		n := 0
		for j := range completions {
			if wanted.has(j) && done.has(j) {
				n++
			}
		}
		need := wanted.len()
		if rule.SucceededCount != nil {
			need = int(*rule.SucceededCount)
		}
		if n >= need {
			return message, true
		}
	}
	return "", false
}
