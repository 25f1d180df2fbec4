package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	testingclock "k8s.io/utils/clock/testing"
)

type objects struct {
	maps   map[string]*corev1.ConfigMap
	claims map[string]*corev1.PersistentVolumeClaim
	pvs    map[string]*corev1.PersistentVolume
	tokens int
	clock  *testingclock.FakePassiveClock
}

func notFound(kind, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if cm := o.maps[name]; cm != nil {
		return cm, nil
	}
	return nil, notFound("configmaps", name)
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if cm := o.maps[name]; cm != nil {
		s := &corev1.Secret{Data: map[string][]byte{}}
		for k, v := range cm.Data {
			s.Data[k] = []byte(v)
		}
		return s, nil
	}
	return nil, notFound("secrets", name)
}

func (o *objects) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	if c := o.claims[name]; c != nil {
		return c, nil
	}
	return nil, notFound("persistentvolumeclaims", name)
}

func (o *objects) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if v := o.pvs[name]; v != nil {
		return v, nil
	}
	return nil, notFound("persistentvolumes", name)
}

func (o *objects) Token(_ context.Context, _, sa string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	o.tokens++
	req.Status = authenticationv1.TokenRequestStatus{
		Token:               fmt.Sprintf("%s-%d-%s", sa, o.tokens, strings.Join(req.Spec.Audiences, ",")),
		ExpirationTimestamp: metav1.NewTime(o.clock.Now().Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)),
	}
	return req, nil
}

func setup(t *testing.T) (*Manager, *objects) {
	c := testingclock.NewFakePassiveClock(time.Unix(1_700_000_000, 0))
	o := &objects{maps: map[string]*corev1.ConfigMap{"m": {Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"c": {0, 1}}}}, clock: c}
	m := New(filepath.Join(t.TempDir(), "pods"), o, c, logr.Discard())
	t.Cleanup(func() {
		if err := m.CleanUp(context.Background(), "u"); err != nil {
			t.Error(err)
		}
	})
	return m, o
}

func podWith(vols ...corev1.Volume) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u", Labels: map[string]string{"app": "x"}},
		Spec:       corev1.PodSpec{ServiceAccountName: "sa", Volumes: vols, Containers: []corev1.Container{{Name: "c"}}},
	}
}

// contents reads a volume as a container would.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(rel string)
	walk = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			p := filepath.Join(rel, e.Name())
			info, err := os.Stat(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(p)
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			out[p] = fmt.Sprintf("%s %04o", data, info.Mode().Perm())
		}
	}
	walk("")
	return out
}

func ptr[T any](v T) *T { return &v }

func TestProjection(t *testing.T) {
	m, o := setup(t)
	pod := podWith(
		corev1.Volume{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "m"},
			DefaultMode:          ptr(int32(0o400)), Items: []corev1.KeyToPath{{Key: "a", Path: "x/y"}, {Key: "c", Path: "bin", Mode: ptr(int32(0o755))}},
		}}},
		corev1.Volume{Name: "none", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "nope", Optional: ptr(true)}}},
		corev1.Volume{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}},
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "aud", ExpirationSeconds: ptr(int64(1000))}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
		}}}},
	)
	in := Input{Pod: pod}
	check := func(name string, want map[string]string) {
		t.Helper()
		v, err := m.Volume(t.Context(), pod, name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, contents(t, v.Path)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := m.Prepare(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	check("cm", map[string]string{"x/y": "1 0400", "bin": "\x00\x01 0755"})
	check("none", map[string]string{})
	check("all", map[string]string{"a": "1 0644", "b": "2 0644", "token": "sa-1-aud 0644", "labels": "app=\"x\" 0644"})
	v, _ := m.Volume(t.Context(), pod, "all")
	before, _ := os.Readlink(filepath.Join(v.Path, dataLink))
	if err := m.Refresh(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Readlink(filepath.Join(v.Path, dataLink)); after != before {
		t.Error("rewritten for no change")
	}
	// A reader of the old content keeps it whole while the new one appears.
	o.maps["m"] = &corev1.ConfigMap{Data: map[string]string{"a": "new", "d": "4"}}
	if err := m.Refresh(t.Context(), in); err == nil {
		t.Error("key c is gone from the config map, and nothing was said")
	}
	check("all", map[string]string{"a": "new 0644", "d": "4 0644", "token": "sa-1-aud 0644", "labels": "app=\"x\" 0644"})
	if entries, _ := filepath.Glob(filepath.Join(v.Path, "..2*")); len(entries) != 1 {
		t.Errorf("old content is left: %v", entries)
	}
	o.clock.SetTime(o.clock.Now().Add(801 * time.Second))
	_ = m.Refresh(t.Context(), in)
	check("all", map[string]string{"a": "new 0644", "d": "4 0644", "token": "sa-2-aud 0644", "labels": "app=\"x\" 0644"})
	if err := m.CleanUp(t.Context(), pod.UID); err != nil {
		t.Fatal(err)
	}
	if err := m.Refresh(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if pods, err := m.Pods(); err != nil || len(pods) != 0 {
		t.Errorf("left %v %v", pods, err)
	}
}

func TestErrors(t *testing.T) {
	m, _ := setup(t)
	for want, v := range map[string]corev1.VolumeSource{
		`MountVolume.SetUp failed for volume "v" : configmaps "x" not found`:                                     {ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}},
		`MountVolume.SetUp failed for volume "v" : references non-existent secret key: z`:                        {Secret: &corev1.SecretVolumeSource{SecretName: "m", Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}},
		`MountVolume.SetUp failed for volume "v" : volumes of type nfs are not supported by this node`:           {NFS: &corev1.NFSVolumeSource{}},
		`MountVolume.SetUp failed for volume "v" : volumes of type csi are not supported by this node`:           {CSI: &corev1.CSIVolumeSource{}},
		`MountVolume.SetUp failed for volume "v" : persistentvolumeclaims "x" not found`:                         {PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}},
		`MountVolume.SetUp failed for volume "v" : hostPath type check failed: /nonexistent is not a directory`:  {HostPath: &corev1.HostPathVolumeSource{Path: "/nonexistent", Type: ptr(corev1.HostPathDirectory)}},
		`MountVolume.SetUp failed for volume "v" : invalid path: must not contain '..': ../evil`:                 {Secret: &corev1.SecretVolumeSource{SecretName: "m", Items: []corev1.KeyToPath{{Key: "a", Path: "../evil"}}}},
		`MountVolume.SetUp failed for volume "v" : invalid path: must be relative: /etc/passwd`:                  {Secret: &corev1.SecretVolumeSource{SecretName: "m", Items: []corev1.KeyToPath{{Key: "a", Path: "/etc/passwd"}}}},
		`MountVolume.SetUp failed for volume "v" : emptyDir of medium "HugePages" is not supported by this node`: {EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages}},
		`MountVolume.SetUp failed for volume "v" : unsupported fieldPath: status.phase`:                          {DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{{Path: "p", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.phase"}}}}},
	} {
		err := m.Prepare(t.Context(), Input{Pod: podWith(corev1.Volume{Name: "v", VolumeSource: v})})
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestHostPathAndClaims(t *testing.T) {
	m, o := setup(t)
	dir := t.TempDir()
	made := filepath.Join(dir, "a", "b")
	o.claims = map[string]*corev1.PersistentVolumeClaim{
		"bound":   {ObjectMeta: metav1.ObjectMeta{UID: "c"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}},
		"pending": {},
	}
	o.pvs = map[string]*corev1.PersistentVolume{"pv": {ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		ClaimRef:               &corev1.ObjectReference{UID: "c"},
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: dir}},
	}}}
	pod := podWith(corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: made, Type: ptr(corev1.HostPathDirectoryOrCreate)}}},
		corev1.Volume{Name: "f", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(dir, "f"), Type: ptr(corev1.HostPathFileOrCreate)}}},
		corev1.Volume{Name: "pvc", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "bound", ReadOnly: true}}})
	if err := m.Prepare(t.Context(), Input{Pod: pod}); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Volume(t.Context(), pod, "pvc"); err != nil || v.Path != dir || !v.ReadOnly {
		t.Error(v, err)
	}
	if err := m.CleanUp(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Error("cleaning up touched a hostPath")
	}
	pod.Spec.Volumes[2].PersistentVolumeClaim.ClaimName = "pending"
	if err := m.Prepare(t.Context(), Input{Pod: pod}); err == nil || !strings.Contains(err.Error(), `persistentvolumeclaim "pending" is not bound`) {
		t.Error(err)
	}
}

func TestEmptyDir(t *testing.T) {
	m, _ := setup(t)
	gid := int64(os.Getgid())
	pod := podWith(corev1.Volume{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}})
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &gid}
	if err := m.Prepare(t.Context(), Input{Pod: pod}); err != nil {
		t.Fatal(err)
	}
	v, _ := m.Volume(t.Context(), pod, "e")
	info, err := os.Stat(v.Path)
	if err != nil || info.Mode().Perm() != 0o777 || info.Mode()&os.ModeSetgid == 0 {
		t.Error(info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Prepare(t.Context(), Input{Pod: pod}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"f": "x 0600"}, contents(t, v.Path)); diff != "" {
		t.Errorf("content lost by a second preparation: %s", diff)
	}
}

func TestSubPath(t *testing.T) {
	m, _ := setup(t)
	pod := podWith(corev1.Volume{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	if err := m.Prepare(t.Context(), Input{Pod: pod}); err != nil {
		t.Fatal(err)
	}
	v, _ := m.Volume(t.Context(), pod, "e")
	outside := t.TempDir()
	for name, to := range map[string]string{"abs": outside, "up": "../../../..", "in": "real"} {
		if err := os.Symlink(to, filepath.Join(v.Path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(v.Path, "real"), 0o755); err != nil {
		t.Fatal(err)
	}
	index := 0
	for sub, ok := range map[string]bool{"new/deep": true, "real": true, "in": true, "in/x": true, "abs": false, "abs/x": false, "up": false, "up/etc": false, "../x": false, "a/../../x": false, "/etc": false, "": false} {
		index++
		got, err := m.SubPath(pod, v, "e", sub, "c", index)
		if (err == nil) != ok {
			t.Errorf("%q: %q %v", sub, got, err)
			continue
		}
		if !ok {
			continue
		}
		// What is mounted is what the volume has at that path.
		if err := os.WriteFile(filepath.Join(got, "probe"), []byte(sub), 0o600); err != nil {
			t.Error(err)
		}
		if data, err := os.ReadFile(filepath.Join(v.Path, sub, "probe")); err != nil || string(data) != sub {
			t.Errorf("%q: %q %v", sub, data, err)
		}
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("written outside the volume: %v", entries)
	}
}

func FuzzValidName(f *testing.F) {
	f.Add("a/b")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, name string) {
		if validName(name) != nil {
			return
		}
		if rel, err := filepath.Rel("/vol", filepath.Join("/vol", name)); err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			t.Errorf("%q leaves the volume", name)
		}
	})
}

func TestSortedNames(t *testing.T) {
	// The kinds an unsupported volume may be of have names; none is told as unknown.
	names := []string{kindOf(&corev1.Volume{VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}}), kindOf(&corev1.Volume{VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}})}
	sort.Strings(names)
	if diff := cmp.Diff([]string{"csi", "image"}, names); diff != "" {
		t.Error(diff)
	}
}
