package persistentvolume_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/keelson/keelson/controller/controllertest"
	"github.com/keelson/keelson/controller/persistentvolume"
)

func volume(name, class, size string, mods ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}
	pv.Spec.StorageClassName, pv.Spec.AccessModes = class, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	pv.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	pv.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/" + name}
	pv.Status.Phase = corev1.VolumePending
	for _, m := range mods {
		m(pv)
	}
	return pv
}

func claim(name, class, size string, mods ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.StorageClassName, c.Spec.AccessModes = &class, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	c.Status.Phase = corev1.ClaimPending
	for _, m := range mods {
		m(c)
	}
	return c
}

func class(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

// state lists claims and volumes with their phases and partners.
func state(e *controllertest.Env) string {
	var out []string
	for _, c := range controllertest.All[*corev1.PersistentVolumeClaim](e.Cluster) {
		out = append(out, fmt.Sprintf("%s=%s/%s", c.Name, c.Spec.VolumeName, c.Status.Phase))
	}
	for _, pv := range controllertest.All[*corev1.PersistentVolume](e.Cluster) {
		to := ""
		if pv.Spec.ClaimRef != nil {
			to = pv.Spec.ClaimRef.Name
		}
		out = append(out, fmt.Sprintf("%s=%s/%s", pv.Name, to, pv.Status.Phase))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func start(e *controllertest.Env) {
	ctl, err := persistentvolume.New(e.Client, e.Cache, persistentvolume.Options{})
	e.Check(err)
	e.Start(ctl.Run)
	e.Settle()
}

func want(e *controllertest.Env, state, want string) {
	e.Helper()
	if state != want {
		e.Errorf("got  %s\nwant %s", state, want)
	}
}

func hasEvent(e *controllertest.Env, event string) {
	e.Helper()
	if got := e.Events(); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, event) }) {
		e.Errorf("no event %q in %q", event, got)
	}
}

func TestBinds(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Create(claim("c", "", "2Gi")) // now that all volumes are known to be available
		e.Settle()
		want(e, state(e), "big=/Available c=mid/Bound mid=c/Bound other=/Available small=/Available")
		c, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "c")
		q := c.Status.Capacity[corev1.ResourceStorage]
		if q.String() != "2Gi" || len(c.Status.AccessModes) != 1 || c.Annotations["pv.kubernetes.io/bind-completed"] != "yes" || c.Annotations["pv.kubernetes.io/bound-by-controller"] != "yes" {
			t.Errorf("claim %+v %+v", c.Annotations, c.Status)
		}
		// A claim that nothing fits waits for a volume.
		e.Create(claim("huge", "", "100Gi"))
		e.Settle()
		hasEvent(e, "FailedBinding: no persistent volumes available for this claim and no storage class is set")
		e.Create(volume("giant", "", "1Ti"))
		e.Settle()
		want(e, state(e), "big=/Available c=mid/Bound giant=huge/Bound huge=giant/Bound mid=c/Bound other=/Available small=/Available")
	}, volume("small", "", "1Gi"), volume("big", "", "8Gi"), volume("mid", "", "2Gi"), volume("other", "gold", "2Gi"))
}

// TestOneEach lets many claims loose on as many volumes.
func TestOneEach(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		for i := range 20 {
			e.Cluster.Put(volume(fmt.Sprint("v", i), "", "1Gi"))
			e.Cluster.Put(claim(fmt.Sprint("c", i), "", "1Gi"))
		}
		start(e)
		e.Advance(time.Minute)
		taken := map[string]string{}
		for _, c := range controllertest.All[*corev1.PersistentVolumeClaim](e.Cluster) {
			if c.Status.Phase != corev1.ClaimBound || taken[c.Spec.VolumeName] != "" {
				t.Errorf("%s has %q, as has %q", c.Name, c.Spec.VolumeName, taken[c.Spec.VolumeName])
			}
			taken[c.Spec.VolumeName] = c.Name
			if pv, _ := controllertest.Get[*corev1.PersistentVolume](e.Cluster, "", c.Spec.VolumeName); pv == nil || pv.Spec.ClaimRef.UID != c.UID {
				t.Errorf("%s: volume %+v", c.Name, pv)
			}
		}
	})
}

func TestMatching(t *testing.T) {
	rox := func(pv *corev1.PersistentVolume) {
		pv.Spec.AccessModes = append(pv.Spec.AccessModes, corev1.ReadOnlyMany)
	}
	block := corev1.PersistentVolumeBlock
	for name, c := range map[string]struct {
		volumes []*corev1.PersistentVolume
		claim   *corev1.PersistentVolumeClaim
		want    string
		event   string
	}{
		"fewest modes": {[]*corev1.PersistentVolume{volume("a", "", "1Gi", rox), volume("b", "", "5Gi")}, claim("c", "", "1Gi"), "b", ""},
		"modes":        {[]*corev1.PersistentVolume{volume("a", "", "1Gi", rox)}, claim("c", "", "1Gi", func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes[0] = corev1.ReadWriteMany }), "", "FailedBinding"},
		"volume mode":  {[]*corev1.PersistentVolume{volume("a", "", "1Gi")}, claim("c", "", "1Gi", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block }), "", "FailedBinding"},
		"selector": {
			[]*corev1.PersistentVolume{volume("a", "", "1Gi"), volume("b", "", "2Gi", func(pv *corev1.PersistentVolume) { pv.Labels = map[string]string{"disk": "ssd"} })},
			claim("c", "", "1Gi", func(c *corev1.PersistentVolumeClaim) {
				c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "ssd"}}
			}), "b", "",
		},
		"named":           {[]*corev1.PersistentVolume{volume("a", "", "1Gi"), volume("b", "", "2Gi")}, claim("c", "", "1Gi", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "b" }), "b", ""},
		"named too small": {[]*corev1.PersistentVolume{volume("a", "", "1Gi")}, claim("c", "", "2Gi", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "a" }), "a", `VolumeMismatch: Cannot bind to requested volume "a": requested PV is too small`},
		"meant for it": {
			[]*corev1.PersistentVolume{volume("a", "", "1Gi"), volume("b", "", "9Gi", func(pv *corev1.PersistentVolume) {
				pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c"}
			})}, claim("c", "", "1Gi"), "b", "",
		},
		"no class":       {nil, claim("c", "none", "1Gi"), "", `ProvisioningFailed: storageclass.storage.k8s.io "none" not found`},
		"waiting":        {[]*corev1.PersistentVolume{volume("a", "late", "1Gi")}, claim("c", "late", "1Gi"), "", "WaitForFirstConsumer: waiting for first consumer to be created before binding"},
		"no provisioner": {nil, claim("c", "static", "1Gi"), "", "ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"},
		"provisioner":    {nil, claim("c", "made", "1Gi"), "", "ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'example.com/disks'"},
	} {
		t.Run(name, func(t *testing.T) {
			controllertest.Run(t, func(e *controllertest.Env) {
				for _, pv := range c.volumes {
					e.Cluster.Put(pv)
				}
				start(e)
				e.Create(c.claim)
				e.Settle()
				got, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "c")
				phase := corev1.ClaimBound
				if c.event != "" {
					phase = corev1.ClaimPending
					hasEvent(e, c.event)
				}
				if got.Spec.VolumeName != c.want || got.Status.Phase != phase {
					t.Errorf("got %q %s", got.Spec.VolumeName, got.Status.Phase)
				}
				if name == "provisioner" && got.Annotations["volume.kubernetes.io/storage-provisioner"] != "example.com/disks" {
					t.Errorf("annotations %v", got.Annotations)
				}
			}, class("late", "example.com/disks", storagev1.VolumeBindingWaitForFirstConsumer), class("static", "kubernetes.io/no-provisioner", storagev1.VolumeBindingImmediate),
				class("made", "example.com/disks", storagev1.VolumeBindingImmediate))
		})
	}
}

// TestScheduled finishes what a scheduler began.
func TestScheduled(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		c, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "c")
		controllertest.Edit(e.Cluster, "", "v", func(pv *corev1.PersistentVolume) {
			pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c", UID: c.UID}
			pv.Annotations = map[string]string{"pv.kubernetes.io/bound-by-controller": "yes"}
		})
		e.Settle()
		want(e, state(e), "c=v/Bound v=c/Bound")
	}, class("late", "kubernetes.io/no-provisioner", storagev1.VolumeBindingWaitForFirstConsumer), volume("v", "late", "1Gi"), claim("c", "late", "1Gi"))
}

func TestDefaultClass(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		c := claim("c", "", "1Gi")
		c.Spec.StorageClassName = nil
		e.Create(c)
		e.Settle()
		s := class("std", "example.com/disks", storagev1.VolumeBindingImmediate)
		s.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
		e.Create(s)
		e.Settle()
		if c, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "c"); c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != "std" {
			t.Errorf("class %v", c.Spec.StorageClassName)
		}
	})
}

func TestReleases(t *testing.T) {
	policy := func(p corev1.PersistentVolumeReclaimPolicy) func(*corev1.PersistentVolume) {
		return func(pv *corev1.PersistentVolume) { pv.Spec.PersistentVolumeReclaimPolicy = p }
	}
	for name, c := range map[string]struct {
		mod          func(*corev1.PersistentVolume)
		phase, event string
	}{
		"retain":  {policy(corev1.PersistentVolumeReclaimRetain), "Released", ""},
		"delete":  {policy(corev1.PersistentVolumeReclaimDelete), "Failed", `VolumeFailedDelete: error getting deleter volume plugin for volume "v": no volume plugin matched`},
		"recycle": {policy(corev1.PersistentVolumeReclaimRecycle), "Failed", "VolumeFailedRecycle: No recycler plugin found for the volume!"},
		"by its driver": {func(pv *corev1.PersistentVolume) {
			pv.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "example.com", VolumeHandle: "v"}
		}, "Released", ""},
	} {
		t.Run(name, func(t *testing.T) {
			controllertest.Run(t, func(e *controllertest.Env) {
				start(e)
				want(e, state(e), "c=v/Bound v=c/Bound")
				e.Check(e.Client.Delete(e.Ctx, claim("c", "", "0")))
				e.Settle()
				want(e, state(e), "v=c/"+c.phase)
				if c.event != "" {
					hasEvent(e, c.event)
				}
				// Another claim of that name does not get it.
				e.Create(claim("c", "", "1Gi"))
				e.Settle()
				want(e, state(e), "c=/Pending v=c/"+c.phase)
			}, volume("v", "", "1Gi", c.mod), claim("c", "", "1Gi"))
		})
	}
}

func TestLost(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		e.Check(e.Client.Delete(e.Ctx, volume("v", "", "0")))
		e.Settle()
		want(e, state(e), "c=v/Lost")
		hasEvent(e, "ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	}, volume("v", "", "1Gi"), claim("c", "", "1Gi"))
}

// TestUnbinds frees a volume whose claim has another.
func TestUnbinds(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		start(e)
		c, _ := controllertest.Get[*corev1.PersistentVolumeClaim](e.Cluster, "default", "c")
		extra := volume("x", "", "1Gi", func(pv *corev1.PersistentVolume) {
			pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "c", UID: c.UID}
			pv.Annotations = map[string]string{"pv.kubernetes.io/bound-by-controller": "yes"}
		})
		e.Create(extra)
		e.Settle()
		want(e, state(e), "c=v/Bound v=c/Bound x=/Available")
	}, volume("v", "", "1Gi"), claim("c", "", "1Gi"))
}

// TestFaults lets every third write fail.
func TestFaults(t *testing.T) {
	controllertest.Run(t, func(e *controllertest.Env) {
		n := 0
		e.Cluster.React(func(c controllertest.Call) error {
			if c.Verb == "update" {
				if n++; n%3 != 0 {
					return fmt.Errorf("refused by the test")
				}
			}
			return nil
		})
		start(e)
		e.Advance(time.Minute)
		want(e, state(e), "c=v/Bound d=w/Bound v=c/Bound w=d/Bound")
	}, volume("v", "", "1Gi"), volume("w", "", "2Gi"), claim("c", "", "1Gi"), claim("d", "", "2Gi"))
}
