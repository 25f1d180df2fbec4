package images

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

// registry is an image service whose registry wants a password.
type registry struct {
	present  map[string]bool
	password string
	pulls    int
}

func (r *registry) ImageStatus(_ context.Context, i *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	if !r.present[i.Image] {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: &runtimeapi.Image{Id: "id-" + i.Image, Size: 7, Uid: &runtimeapi.Int64Value{Value: 5}}}, nil
}

func (r *registry) PullImage(_ context.Context, i *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	r.pulls++
	if r.password != "" && auth.GetPassword() != r.password {
		return "", errors.New("unauthorized")
	}
	r.present[i.Image] = true
	return i.Image, nil
}

type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if x := s[name]; x != nil {
		return x, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func dockerJSON(text string) *corev1.Secret {
	return &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(text)}}
}

func TestEnsure(t *testing.T) {
	good := dockerJSON(`{"auths":{"https://r.example/v1/":{"auth":"dTpnb29k"}}}`)
	for _, tc := range []struct {
		name     string
		image    string
		policy   corev1.PullPolicy
		present  bool
		password string
		secrets  []string
		pulls    int
		reason   string
		events   string
	}{
		{"present", "r.example/a:1", corev1.PullIfNotPresent, true, "", nil, 0, "", `Pulled Container image "r.example/a:1" already present on machine`},
		{"absent", "r.example/a:1", corev1.PullIfNotPresent, false, "", nil, 1, "", `Pulling Pulling image "r.example/a:1"|Pulled Successfully pulled image "r.example/a:1" in `},
		{"always", "r.example/a:1", corev1.PullAlways, true, "", nil, 1, "", `Pulling |Pulled Successfully`},
		{"latest is always pulled", "r.example/a", "", true, "", nil, 1, "", `Pulling |Pulled Successfully`},
		{"never", "r.example/a:1", corev1.PullNever, false, "", nil, 0, "ErrImageNeverPull", `ErrImageNeverPull Container image "r.example/a:1" is not present with pull policy of Never`},
		{"invalid", "A B", corev1.PullAlways, false, "", nil, 0, "InvalidImageName", `InspectFailed Failed to apply default image tag "A B": couldn't parse image name`},
		{"no password", "r.example/a:1", corev1.PullAlways, false, "good", nil, 1, "ErrImagePull", `Pulling |Failed Failed to pull image "r.example/a:1": unauthorized`},
		{"password from a secret, after one that is missing", "r.example/a:1", corev1.PullAlways, false, "good", []string{"none", "good"}, 1, "", `Pulling |Pulled Successfully`},
		{"secret that is broken", "r.example/a:1", corev1.PullAlways, false, "good", []string{"broken"}, 0, "ErrImagePull", `Pulling |Failed Failed to pull image "r.example/a:1": pull secret ns/broken: `},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &registry{present: map[string]bool{tc.image: tc.present}, password: tc.password}
			m := New(r, secrets{"good": good, "broken": dockerJSON("{")}, clock.RealClock{}, 1)
			var events []string
			img, err := m.Ensure(t.Context(), Request{Image: tc.image, Policy: tc.policy, Namespace: "ns", Secrets: tc.secrets}, func(_, reason, message string) { events = append(events, reason+" "+message) })
			reason := ""
			if err != nil {
				reason = err.Reason
			} else if img.Ref != "id-"+tc.image || img.UID == nil || *img.UID != 5 {
				t.Errorf("%+v", img)
			}
			if reason != tc.reason || r.pulls != tc.pulls {
				t.Errorf("%q after %d pulls, want %q after %d", reason, r.pulls, tc.reason, tc.pulls)
			}
			want := strings.Split(tc.events, "|")
			if len(events) != len(want) {
				t.Fatalf("%q", events)
			}
			for i := range want {
				if !strings.HasPrefix(events[i], want[i]) {
					t.Errorf("%q, want %q…", events[i], want[i])
				}
			}
		})
	}
}

func TestMatch(t *testing.T) {
	all := map[string][]dockerAuth{
		"docker.io": {{Username: "hub"}}, "https://index.docker.io/v1/": {{Username: "index"}}, "r.example": {{Username: "host"}}, "r.example/team": {{Username: "team"}},
		"r.example:5000": {{Username: "port"}}, "*.wild.example": {{Username: "wild"}}, "http://plain.example": {{Username: "plain"}},
	}
	for image, want := range map[string][]string{
		"nginx":              {"hub", "index"},
		"r.example/x/y":      {"host"},
		"r.example/team/y":   {"team", "host"},
		"r.example/teams/y":  {"host"},
		"r.example:5000/y":   {"port"},
		"a.wild.example/y":   {"wild"},
		"a.b.wild.example/y": nil,
		"plain.example/y@sha256:0123456789012345678901234567890123456789012345678901234567890123": {"plain"},
		"evil-r.example/y": nil,
	} {
		named, err := reference.ParseDockerRef(image)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range match(all, named) {
			got = append(got, a.Username)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", image, diff)
		}
	}
}
