package namespace

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// findings is what one attempt to empty a namespace came upon.
type findings struct {
	discovery  error
	parse      error
	content    []error
	remaining  map[string]int // by resource.group
	finalizers map[string]int
	wait       time.Duration
}

func (f *findings) left() (n int) {
	for _, c := range f.remaining {
		n += c
	}
	return n
}

func (f *findings) clean() bool {
	return f.discovery == nil && f.parse == nil && len(f.content) == 0 && f.left() == 0
}

func (f *findings) conditions() []corev1.NamespaceCondition {
	contentErr := utilerrors.NewAggregate(f.content)
	if contentErr != nil {
		contentErr = utilerrors.NewAggregate([]error{fmt.Errorf("Failed to delete all resource types, %d remaining: %w", len(f.content), contentErr)}) //nolint:staticcheck // Kubernetes' words
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(f.remaining)) {
		parts = append(parts, fmt.Sprintf("%s has %d resource instances", name, f.remaining[name]))
	}
	var held []string
	for _, name := range slices.Sorted(maps.Keys(f.finalizers)) {
		held = append(held, fmt.Sprintf("%s in %d resource instances", name, f.finalizers[name]))
	}
	return []corev1.NamespaceCondition{
		failure(corev1.NamespaceDeletionDiscoveryFailure, f.discovery, "DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered"),
		failure(corev1.NamespaceDeletionGVParsingFailure, f.parse, "GroupVersionParsingFailed", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
		failure(corev1.NamespaceDeletionContentFailure, contentErr, "ContentDeletionFailed", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
		waiting(corev1.NamespaceContentRemaining, "Some resources are remaining: ", parts, "SomeResourcesRemain", "ContentRemoved", "All content successfully removed"),
		waiting(corev1.NamespaceFinalizersRemaining, "Some content in the namespace has finalizers remaining: ", held, "SomeFinalizersRemain", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
	}
}

func failure(t corev1.NamespaceConditionType, err error, reason, okReason, okMessage string) corev1.NamespaceCondition {
	if err == nil {
		return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: okReason, Message: okMessage}
	}
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: err.Error()}
}

func waiting(t corev1.NamespaceConditionType, prefix string, parts []string, reason, okReason, okMessage string) corev1.NamespaceCondition {
	if len(parts) == 0 {
		return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: okReason, Message: okMessage}
	}
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: prefix + strings.Join(parts, ", ")}
}

func setCondition(s *corev1.NamespaceStatus, c corev1.NamespaceCondition, now metav1.Time) {
	c.LastTransitionTime = now
	for i := range s.Conditions {
		old := &s.Conditions[i]
		if old.Type != c.Type {
			continue
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		*old = c
		return
	}
	s.Conditions = append(s.Conditions, c)
}
