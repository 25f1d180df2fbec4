package kubectl

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// host is a network namespace with a cable to a switch: another machine, as far as the network goes.
type host struct {
	ns   netns.NsHandle
	ip   string
	link string // the switch's end of the cable
}

// on runs a command on the host.
func (h *host) on(t *testing.T, cmd *exec.Cmd) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer here.Close()
	if err := netns.Set(h.ns); err != nil {
		return err
	}
	err = cmd.Start()
	if serr := netns.Set(here); serr != nil {
		t.Fatal(serr)
	}
	return err
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// TestHosts joins two workers on hosts of their own to a control plane: pods on different nodes reach each other and Services; a node that is
// cut off is marked, its pods replaced, and it recovers when it is back.
func TestHosts(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("KEELSON_REQUIRE_PRIVILEGED") != "" {
			t.Fatal("needs root, to make network namespaces")
		}
		t.Skip("needs root, to make network namespaces")
	}
	ip(t, "link add sw0 type bridge")
	ip(t, "addr add 10.77.0.1/24 dev sw0")
	ip(t, "link set sw0 up")
	t.Cleanup(func() { ip(t, "link del sw0") })
	var hosts []*host
	for i := range 2 {
		hosts = append(hosts, newHost(t, i))
	}
	c := startOn(t, "10.77.0.1", "-nodes", "0", "-listen", "10.77.0.1:0", "-node-monitor-grace-period", "15s")
	node := binary(t, "node")
	for i, h := range hosts {
		cmd := exec.Command(node, "-kubeconfig", filepath.Join(c.dir, "data", "join.kubeconfig"), "-name", fmt.Sprint("worker-", i), "-ip", h.ip, "-data-dir", filepath.Join(c.dir, "worker", fmt.Sprint(i)))
		cmd.Stderr = c.log
		if err := h.on(t, cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
		c.wait(fmt.Sprint("node/worker-", i), "condition=Ready")
	}
	c.identities(t)
	c.in(t, strings.ReplaceAll(spread, "IMAGE", c.image), "apply -f -", "created")
	c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
	pods := strings.Fields(c.k(t, `get pods -l app=web -o jsonpath={range.items[*]}{.metadata.name},{.spec.nodeName},{.status.podIP}{"\n"}{end}`))
	nodes := map[string]bool{}
	for _, from := range pods {
		f := strings.Split(from, ",")
		nodes[f[1]] = true
		for _, to := range pods {
			c.k(t, "exec "+f[0]+" -- get http://"+strings.Split(to, ",")[2]+":8080/direct", "/direct")
		}
		for range 6 {
			c.k(t, "exec "+f[0]+" -- get http://web.default.svc:8081/service", "/service")
		}
	}
	if len(nodes) != 2 {
		t.Errorf("pods are on %v, want both nodes", nodes)
	}
	ip(t, "link set "+hosts[1].link+" down")
	c.wait("node/worker-1", "condition=Ready=Unknown")
	c.k(t, "get node worker-1 -o jsonpath={.spec.taints[*].key}", "node.kubernetes.io/unreachable")
	eventually(t, func() error {
		out := c.k(t, "get pods -l app=web --field-selector=spec.nodeName=worker-0,status.phase=Running")
		if strings.Count(out, "1/1") < 4 {
			return fmt.Errorf("pods are not replaced:\n%s", out)
		}
		return nil
	})
	ip(t, "link set "+hosts[1].link+" up")
	c.wait("node/worker-1", "condition=Ready")
	eventually(t, func() error {
		if out := c.k(t, "get pods -l app=web -o wide"); strings.Contains(out, "Terminating") {
			return fmt.Errorf("pods of the lost node are still there:\n%s", out)
		}
		return nil
	})
	c.k(t, "delete deploy web", "deleted") // while there are nodes to end its pods
	c.k(t, "wait pod -l app=web --for=delete --timeout=60s")
}

// identities shows that the nodes are known by certificates that the cluster signed for them, and what they may not do.
func (c *cluster) identities(t *testing.T) {
	t.Helper()
	c.fails(t, "", "get pods --kubeconfig="+filepath.Join(c.dir, "data", "join.kubeconfig"), `User "system:bootstrap:keelson" cannot list resource "pods"`)
	c.sees(t, `get csr -o jsonpath={range.items[*]}{.spec.signerName},{.spec.username},{.status.conditions[*].type}{"\n"}{end}`,
		"kubernetes.io/kube-apiserver-client-kubelet,system:bootstrap:keelson,Approved",
		"kubernetes.io/kubelet-serving,system:node:worker-0,Approved", "kubernetes.io/kubelet-serving,system:node:worker-1,Approved")
	cert := filepath.Join(c.dir, "worker/0/pki/kubelet-client-current.pem")
	ca := filepath.Join(c.dir, "ca.pem")
	if err := os.WriteFile(ca, []byte(c.k(t, "get cm kube-root-ca.crt -o jsonpath={.data.ca\\.crt}")), 0o600); err != nil {
		t.Fatal(err)
	}
	as := " --kubeconfig=/dev/null --client-certificate=" + cert + " --client-key=" + cert + " --certificate-authority=" + ca + " --server=" +
		c.k(t, "config view -o jsonpath={.clusters[0].cluster.server}")
	c.k(t, "auth whoami"+as, "system:node:worker-0", "system:nodes")
	c.fails(t, "", "label node worker-1 stolen=yes"+as, `node "worker-0" is not allowed to modify node "worker-1"`)
	c.fails(t, "", "taint node worker-0 free=yes:NoSchedule"+as, `node "worker-0" is not allowed to modify taints`)
	c.fails(t, "", "create ns mine"+as, `User "system:node:worker-0" cannot create resource "namespaces"`)
	// The API server verified the kubelets, whose own authority it does not ask about.
	for _, node := range []string{"worker-0", "worker-1"} {
		c.sees(t, "get --raw /api/v1/nodes/"+node+"/proxy/healthz", "ok")
	}
}

func newHost(t *testing.T, i int) *host {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(here); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	h := &host{ns: ns, ip: fmt.Sprint("10.77.0.", 10+i), link: fmt.Sprint("cable", i)}
	sw, err := netlink.LinkByName("sw0")
	if err != nil {
		t.Fatal(err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
	veth.Name, veth.MasterIndex = h.link, sw.Attrs().Index
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	ip(t, "link set "+h.link+" up")
	in, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	for _, name := range []string{"lo", "eth0"} {
		l, err := in.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "eth0" {
			a, _ := netlink.ParseAddr(h.ip + "/24")
			if err := in.AddrAdd(l, a); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

const spread = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
      - {name: web, image: IMAGE, command: [httpd], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8081, targetPort: 8080}]}
`
