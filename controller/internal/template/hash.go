// Package template hashes and compares pod templates as Kubernetes does, so
// that a controller taking over recognizes what another one made.
package template

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/fnv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"
)

// Hash is the value of label pod-template-hash (or of a revision's name) for
// anything hashable by content.
func Hash(v any, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(v))
	addCollisions(h, collisions)
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

func addCollisions(h hash.Hash32, collisions *int32) {
	if collisions == nil {
		return
	}
	b := make([]byte, 8)
	binary.LittleEndian.PutUint32(b, uint32(*collisions))
	h.Write(b)
}

// Equal compares templates without their pod-template-hash labels.
func Equal(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, ok := t.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; !ok {
		return t
	}
	c := *t
	c.Labels = make(map[string]string, len(t.Labels))
	for k, v := range t.Labels {
		if k != appsv1.DefaultDeploymentUniqueLabelKey {
			c.Labels[k] = v
		}
	}
	return &c
}
