package core_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/keelson/keelson/apiserver/internal/core"
)

// benchPod is a pod as Deployments make them, of about 1.5 kB.
func benchPod(name string) *corev1.Pod {
	yes := true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, GenerateName: "web-5f6d8c7b9-",
			Labels:          map[string]string{"app": "web", "tier": "front", "pod-template-hash": "5f6d8c7b9"},
			Annotations:     map[string]string{"example.com/note": "a note of some length, as they are found"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5f6d8c7b9", UID: "0d4d6d2c-5f7e-4c66-9d0f-0a2b9b0e7a11", Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/web:1.2.3", Args: []string{"--port=8080", "--verbose"},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
				Env:   []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.name"}}}},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "kube-api-access", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "kube-api-access", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				}}}},
			},
			Tolerations:   []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}},
			RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, SchedulerName: "default-scheduler",
		},
	}
}

func benchCore(b *testing.B, pods int) (*core.Core, core.Target) {
	c := start(b, core.Options{})
	tg := target(b, c, "pods", "ns", "")
	for i := range pods {
		mustCreate(b, c, tg, benchPod(fmt.Sprintf("p%05d", i)))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return c, tg
}

func BenchmarkCreate(b *testing.B) {
	c, tg := benchCore(b, 1)
	pods := make([]*corev1.Pod, b.N)
	for i := range pods {
		pods[i] = benchPod(fmt.Sprintf("n%07d", i))
	}
	b.ResetTimer()
	for i := range b.N {
		mustCreate(b, c, tg, pods[i])
	}
}

func BenchmarkGet(b *testing.B) {
	c, tg := benchCore(b, 1000)
	tg.Name = "p00500"
	for range b.N {
		mustGet(b, c, tg)
	}
}

func benchPatch(b *testing.B, pt types.PatchType, sub, format string) {
	c, tg := benchCore(b, 1)
	tg.Name, tg.Subresource = "p00000", sub
	for i := range b.N {
		o := metav1.PatchOptions{FieldManager: "bench"}
		if pt == types.ApplyYAMLPatchType {
			o.Force = ptr(true)
		}
		if _, _, err := c.Patch(context.Background(), tg, pt, []byte(fmt.Sprintf(format, i)), o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPatchMerge(b *testing.B) {
	benchPatch(b, types.MergePatchType, "", `{"metadata":{"annotations":{"bench":"%d"}}}`)
}

func BenchmarkPatchStrategic(b *testing.B) {
	benchPatch(b, types.StrategicMergePatchType, "", `{"spec":{"containers":[{"name":"web","image":"i:%d"}]}}`)
}

func BenchmarkPatchStatus(b *testing.B) {
	benchPatch(b, types.StrategicMergePatchType, "status", `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"r%d"}]}}`)
}

func BenchmarkPatchApply(b *testing.B) {
	benchPatch(b, types.ApplyYAMLPatchType, "", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p00000","annotations":{"bench":"%d"}}}`)
}

func BenchmarkUpdate(b *testing.B) {
	c, tg := benchCore(b, 1)
	tg.Name = "p00000"
	for i := range b.N {
		p := mustGet(b, c, tg).Object().DeepCopyObject().(*corev1.Pod)
		p.Annotations["bench"] = fmt.Sprint(i)
		if _, _, err := c.Update(context.Background(), tg, p, metav1.UpdateOptions{FieldManager: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchList(b *testing.B, mediaType string) {
	c, tg := benchCore(b, 10000)
	var buf []byte
	for range b.N {
		l, err := c.List(context.Background(), tg, core.ListOptions{})
		if err != nil {
			b.Fatal(err)
		}
		buf = buf[:0]
		for _, o := range l.Items {
			if buf, err = o.AppendItem(buf, tg.Resource, mediaType); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkList10000Protobuf(b *testing.B) {
	benchList(b, "application/vnd.kubernetes.protobuf")
}
func BenchmarkList10000JSON(b *testing.B) { benchList(b, "application/json") }

func BenchmarkWatch1000(b *testing.B) {
	c, tg := benchCore(b, 1)
	tg.Name = ""
	since := fmt.Sprint(mustGet(b, c, target(b, c, "pods", "ns", "p00000")).Revision())
	var wg sync.WaitGroup
	for range 1000 {
		w := mustWatch(b, c, tg, core.ListOptions{ResourceVersion: since})
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]core.Event, 0, 64)
			for n := 0; n < b.N; {
				evs, err := w.Next(context.Background(), buf)
				if err != nil {
					b.Error(err)
					return
				}
				n += len(evs)
			}
		}()
	}
	tg.Name = "p00000"
	b.ResetTimer()
	for i := range b.N {
		if _, _, err := c.Patch(context.Background(), tg, types.MergePatchType, []byte(fmt.Sprintf(`{"metadata":{"annotations":{"bench":"%d"}}}`, i)), metav1.PatchOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkDeleteCollection10000(b *testing.B) {
	for range b.N {
		b.StopTimer()
		c, tg := benchCore(b, 10000)
		b.StartTimer()
		if _, err := c.DeleteCollection(context.Background(), tg, metav1.DeleteOptions{}, core.ListOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
