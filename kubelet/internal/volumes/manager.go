package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// Objects reads what volumes are made of. Not finding one is the API's NotFound error.
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	Token(ctx context.Context, namespace, serviceAccount string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Manager is safe for concurrent use.
type Manager struct {
	root    string
	objects Objects
	clock   clock.PassiveClock
	log     logr.Logger

	mu     sync.Mutex
	locks  map[types.UID]*podLock
	tokens map[tokenKey]token
}

type podLock struct {
	sync.Mutex
	users int
}

// New makes a manager that keeps pods' directories under root.
func New(root string, objects Objects, c clock.PassiveClock, log logr.Logger) *Manager {
	return &Manager{root: root, objects: objects, clock: c, log: log, locks: map[types.UID]*podLock{}, tokens: map[tokenKey]token{}}
}

// Input is a pod and what its downward API volumes show.
type Input struct {
	Pod             *corev1.Pod
	PodIPs, HostIPs []string
	Allocatable     corev1.ResourceList
}

// PodDir is the directory of a pod.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.root, string(uid)) }

func (m *Manager) lock(uid types.UID) func() {
	m.mu.Lock()
	l := m.locks[uid]
	if l == nil {
		l = &podLock{}
		m.locks[uid] = l
	}
	l.users++
	m.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		m.mu.Lock()
		if l.users--; l.users == 0 {
			delete(m.locks, uid)
		}
		m.mu.Unlock()
	}
}

// Prepare makes what the pod's volumes need, and brings what is there up to date. Idempotent.
func (m *Manager) Prepare(ctx context.Context, in Input) error {
	defer m.lock(in.Pod.UID)()
	if err := os.MkdirAll(m.PodDir(in.Pod.UID), 0o750); err != nil {
		return err
	}
	return m.setUp(ctx, in)
}

// Refresh brings volumes made of API objects up to date, unless the pod's directory is not there.
func (m *Manager) Refresh(ctx context.Context, in Input) error {
	defer m.lock(in.Pod.UID)()
	if _, err := os.Stat(m.PodDir(in.Pod.UID)); err != nil {
		return nil
	}
	return m.setUp(ctx, in)
}

func (m *Manager) setUp(ctx context.Context, in Input) error {
	var errs []error
	for i := range in.Pod.Spec.Volumes {
		v := &in.Pod.Spec.Volumes[i]
		if err := m.setUpVolume(ctx, in, v); err != nil {
			errs = append(errs, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", v.Name, err))
		}
	}
	for _, c := range append(append([]corev1.Container(nil), in.Pod.Spec.InitContainers...), in.Pod.Spec.Containers...) {
		if len(c.VolumeDevices) > 0 {
			errs = append(errs, fmt.Errorf("container %q asks for block devices, which this node does not support", c.Name))
		}
	}
	return errors.Join(errs...)
}

// Refreshable tells if the pod has volumes that change with API objects or time.
func Refreshable(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.ConfigMap != nil || v.Secret != nil || v.Projected != nil || v.DownwardAPI != nil {
			return true
		}
	}
	return false
}

// dir is where a volume is, in Kubernetes' layout.
func (m *Manager) dir(uid types.UID, plugin, name string) string {
	return filepath.Join(m.PodDir(uid), "volumes", "kubernetes.io~"+plugin, name)
}

func (m *Manager) setUpVolume(ctx context.Context, in Input, v *corev1.Volume) error {
	pod := in.Pod
	switch {
	case v.EmptyDir != nil:
		return m.emptyDir(pod, v)
	case v.HostPath != nil:
		return hostPath(v.HostPath)
	case v.PersistentVolumeClaim != nil:
		_, err := m.claimPath(ctx, pod, v.PersistentVolumeClaim)
		return err
	}
	plugin, files, err := m.payload(ctx, in, v)
	if err != nil {
		return err
	}
	if plugin == "" {
		return fmt.Errorf("volumes of type %s are not supported by this node", kindOf(v))
	}
	dir := m.dir(pod.UID, plugin, v.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeAtomic(dir, files, m.clock.Now(), fsGroup(pod))
}

func fsGroup(pod *corev1.Pod) *int64 {
	if sc := pod.Spec.SecurityContext; sc != nil {
		return sc.FSGroup
	}
	return nil
}

// Volume is where a volume is on the machine.
type Volume struct {
	Path     string
	ReadOnly bool
}

// Volume finds a pod's volume that has been prepared.
func (m *Manager) Volume(ctx context.Context, pod *corev1.Pod, name string) (Volume, error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		switch {
		case v.EmptyDir != nil:
			return Volume{Path: m.dir(pod.UID, "empty-dir", name)}, nil
		case v.HostPath != nil:
			return Volume{Path: v.HostPath.Path}, nil
		case v.PersistentVolumeClaim != nil:
			path, err := m.claimPath(ctx, pod, v.PersistentVolumeClaim)
			return Volume{Path: path, ReadOnly: v.PersistentVolumeClaim.ReadOnly}, err
		case v.ConfigMap != nil:
			return Volume{Path: m.dir(pod.UID, "configmap", name), ReadOnly: true}, nil
		case v.Secret != nil:
			return Volume{Path: m.dir(pod.UID, "secret", name), ReadOnly: true}, nil
		case v.DownwardAPI != nil:
			return Volume{Path: m.dir(pod.UID, "downward-api", name), ReadOnly: true}, nil
		case v.Projected != nil:
			return Volume{Path: m.dir(pod.UID, "projected", name), ReadOnly: true}, nil
		}
		return Volume{}, fmt.Errorf("volumes of type %s are not supported by this node", kindOf(v))
	}
	return Volume{}, fmt.Errorf("volume %q not found", name)
}

func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) error {
	dir := m.dir(pod.UID, "empty-dir", v.Name)
	_, err := os.Stat(dir)
	fresh := os.IsNotExist(err)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	switch v.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		var size int64
		if q := v.EmptyDir.SizeLimit; q != nil {
			size = q.Value()
		}
		mounted, err := isMountPoint(dir)
		if err != nil {
			return err
		}
		if !mounted {
			if err := mountTmpfs(dir, size); errors.Is(err, os.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
				m.log.Info("No permission to mount a tmpfs: an emptyDir of medium Memory is on disk", "pod", pod.Namespace+"/"+pod.Name, "volume", v.Name)
			} else if err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("emptyDir of medium %q is not supported by this node", v.EmptyDir.Medium)
	}
	if fresh {
		// The umask does not apply to what pods share.
		if err := os.Chmod(dir, 0o777); err != nil {
			return err
		}
		return setOwnership(dir, fsGroup(pod), false)
	}
	return nil
}

func hostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	info, err := os.Stat(h.Path)
	missing := os.IsNotExist(err)
	if err != nil && !missing {
		return err
	}
	is := func(ok bool, what string) error {
		if missing || !ok {
			return fmt.Errorf("hostPath type check failed: %s is not %s", h.Path, what)
		}
		return nil
	}
	var mode os.FileMode
	if !missing {
		mode = info.Mode()
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(h.Path, 0o755)
		}
		return is(mode.IsDir(), "a directory")
	case corev1.HostPathDirectory:
		return is(mode.IsDir(), "a directory")
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return is(mode.IsRegular(), "a file")
	case corev1.HostPathFile:
		return is(mode.IsRegular(), "a file")
	case corev1.HostPathSocket:
		return is(mode&os.ModeSocket != 0, "a socket file")
	case corev1.HostPathCharDev:
		return is(mode&os.ModeCharDevice != 0, "a character device")
	case corev1.HostPathBlockDev:
		return is(mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0, "a block device")
	}
	return fmt.Errorf("%s is an invalid volume type", kind)
}

func (m *Manager) claimPath(ctx context.Context, pod *corev1.Pod, src *corev1.PersistentVolumeClaimVolumeSource) (string, error) {
	claim, err := m.objects.Claim(ctx, pod.Namespace, src.ClaimName)
	if err != nil {
		return "", err
	}
	if claim.DeletionTimestamp != nil {
		return "", errors.New("PVC is being deleted")
	}
	if claim.Spec.VolumeName == "" || claim.Status.Phase != corev1.ClaimBound {
		return "", fmt.Errorf("persistentvolumeclaim %q is not bound", src.ClaimName)
	}
	pv, err := m.objects.PersistentVolume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return "", err
	}
	if ref := pv.Spec.ClaimRef; ref == nil || ref.UID != claim.UID {
		return "", fmt.Errorf("PV %q is not bound to PVC %q", pv.Name, src.ClaimName)
	}
	if pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		return "", fmt.Errorf("PV %q has volumeMode %s, which this node does not support", pv.Name, *pv.Spec.VolumeMode)
	}
	switch {
	case pv.Spec.HostPath != nil:
		return pv.Spec.HostPath.Path, hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		if _, err := os.Stat(pv.Spec.Local.Path); err != nil {
			return "", fmt.Errorf("path %q does not exist", pv.Spec.Local.Path)
		}
		return pv.Spec.Local.Path, nil
	}
	return "", fmt.Errorf("PV %q is neither of type hostPath nor local, the types this node supports", pv.Name)
}

// CleanUp unmounts and removes everything of a pod. Idempotent.
func (m *Manager) CleanUp(ctx context.Context, uid types.UID) error {
	defer m.lock(uid)()
	m.mu.Lock()
	for key := range m.tokens {
		if key.pod == uid {
			delete(m.tokens, key)
		}
	}
	m.mu.Unlock()
	dir := m.PodDir(uid)
	if _, err := os.Lstat(dir); os.IsNotExist(err) {
		return nil
	}
	if err := unmountAll(dir); err != nil {
		return fmt.Errorf("unmounting volumes: %w", err)
	}
	return removeTree(dir)
}

// Pods lists the pods that have a directory.
func (m *Manager) Pods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.root)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []types.UID
	for _, e := range entries {
		out = append(out, types.UID(e.Name()))
	}
	return out, nil
}

// removeTree removes a directory of which parts may not be writable.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func kindOf(v *corev1.Volume) string {
	s := &v.VolumeSource
	for name, set := range map[string]bool{
		"csi": s.CSI != nil, "ephemeral": s.Ephemeral != nil, "image": s.Image != nil, "nfs": s.NFS != nil, "iscsi": s.ISCSI != nil,
		"gitRepo": s.GitRepo != nil, "gcePersistentDisk": s.GCEPersistentDisk != nil, "awsElasticBlockStore": s.AWSElasticBlockStore != nil, "glusterfs": s.Glusterfs != nil,
		"rbd": s.RBD != nil, "flexVolume": s.FlexVolume != nil, "cinder": s.Cinder != nil, "cephfs": s.CephFS != nil, "flocker": s.Flocker != nil, "fc": s.FC != nil,
		"azureFile": s.AzureFile != nil, "azureDisk": s.AzureDisk != nil, "vsphereVolume": s.VsphereVolume != nil, "quobyte": s.Quobyte != nil,
		"photonPersistentDisk": s.PhotonPersistentDisk != nil, "portworxVolume": s.PortworxVolume != nil, "scaleIO": s.ScaleIO != nil, "storageos": s.StorageOS != nil,
	} {
		if set {
			return name
		}
	}
	return "unknown"
}

// expiry of a token from which on it is replaced: at four fifths of its life, and daily.
func tokenDue(start, end time.Time) time.Time {
	due := start.Add(end.Sub(start) * 4 / 5)
	if day := start.Add(24 * time.Hour); day.Before(due) {
		return day
	}
	return due
}
