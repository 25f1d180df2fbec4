package apiserver_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/keelson/keelson/apiserver"
)

func benchServer(b *testing.B) *apiserver.Server {
	o := listening()
	o.DisableAdmission = []string{"ServiceAccount"}
	return start(b, o)
}

// benchPod is a pod as controllers make them, of about 1.5 kB.
func benchPod(name string) *corev1.Pod {
	env := make([]corev1.EnvVar, 10)
	for i := range env {
		env[i] = corev1.EnvVar{Name: fmt.Sprintf("SOME_VARIABLE_%d", i), Value: "some value of ordinary length"}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"app": "bench", "tier": "back"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "registry.example/app:v1", Env: env}}},
	}
}

// doors are the ways in: over TLS in both encodings, and in-process.
func doors(b *testing.B, s *apiserver.Server) map[string]kubernetes.Interface {
	_, cfg := overTLS(b, s, apiserver.Admin)
	out := map[string]kubernetes.Interface{}
	for name, ct := range map[string]string{"json": "application/json", "protobuf": "application/vnd.kubernetes.protobuf"} {
		c := rest.CopyConfig(cfg)
		c.ContentType = ct
		out["https-"+name] = clientFor(b, c)
	}
	return out
}

var benchNames atomic.Int64

func BenchmarkCreate(b *testing.B) {
	s := benchServer(b)
	b.Run("in-process", func(b *testing.B) {
		c := s.Client(apiserver.Admin)
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Create(b.Context(), benchPod(fmt.Sprintf("p%d", benchNames.Add(1)))); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, cs := range doors(b, s) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := cs.CoreV1().Pods("default").Create(b.Context(), benchPod(fmt.Sprintf("p%d", benchNames.Add(1))), metav1.CreateOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := benchServer(b)
	c := s.Client(apiserver.Admin)
	if err := c.Create(b.Context(), benchPod("p")); err != nil {
		b.Fatal(err)
	}
	b.Run("in-process", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Get(b.Context(), client.ObjectKey{Namespace: "default", Name: "p"}, &corev1.Pod{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, cs := range doors(b, s) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := cs.CoreV1().Pods("default").Get(b.Context(), "p", metav1.GetOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPatch(b *testing.B) {
	s := benchServer(b)
	if err := s.Client(apiserver.Admin).Create(b.Context(), benchPod("p")); err != nil {
		b.Fatal(err)
	}
	for name, cs := range doors(b, s) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				patch := fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, benchNames.Add(1))
				if _, err := cs.CoreV1().Pods("default").Patch(b.Context(), "p", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkList reads the bytes of 2,000 pods without decoding them: it measures the server.
func BenchmarkList(b *testing.B) {
	s := benchServer(b)
	c := s.Client(apiserver.Admin)
	for i := range 2000 {
		if err := c.Create(b.Context(), benchPod(fmt.Sprintf("p%04d", i))); err != nil {
			b.Fatal(err)
		}
	}
	for name, cs := range doors(b, s) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				raw, err := cs.CoreV1().RESTClient().Get().AbsPath("/api/v1/pods").Do(b.Context()).Raw()
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(raw)))
			}
		})
	}
}

// BenchmarkWatch is one update seen by 100 watchers over TLS.
func BenchmarkWatch(b *testing.B) {
	s := benchServer(b)
	c := s.Client(apiserver.Admin)
	if err := c.Create(b.Context(), benchPod("p")); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	cs := doors(b, s)["https-json"]
	const watchers = 100
	seen := make(chan struct{}, watchers)
	for range watchers {
		body, err := cs.CoreV1().RESTClient().Get().AbsPath("/api/v1/pods").Param("watch", "true").Stream(ctx)
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer body.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := body.Read(buf)
				for _, x := range buf[:n] {
					if x == '\n' {
						seen <- struct{}{}
					}
				}
				if err != nil {
					return
				}
			}
		}()
	}
	for range watchers {
		<-seen // the pod as it is
	}
	b.ReportAllocs()
	for b.Loop() {
		patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"n":"%d"}}}`, benchNames.Add(1)))
		if err := c.Patch(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}, patch); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-seen
		}
	}
}
