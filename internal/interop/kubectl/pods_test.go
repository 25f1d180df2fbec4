package kubectl

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// pod runs a pod of one container, of which fields are given in YAML's flow style, and waits for it as long as until says.
func (c *cluster) pod(t *testing.T, name, until, container string, spec ...string) {
	t.Helper()
	spec = append(spec, "terminationGracePeriodSeconds: 1")
	c.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec: {%s, containers: [{name: c, image: %q, %s}]}\n",
		name, name, strings.Join(spec, ", "), c.image, container))
	if until != "" {
		c.k(t, "wait pod/"+name+" --for="+until+" --timeout=60s", "met")
	}
}

func (c *cluster) apply(t *testing.T, manifest string) {
	t.Helper()
	if out, err := c.try(strings.ReplaceAll(manifest, "IMAGE", c.image), "create", "-f", "-"); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, manifest)
	}
}

// sees waits until kubectl's output, of success or failure, has all of want.
func (c *cluster) sees(t *testing.T, args string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		out, _ := c.try("", strings.Fields(args)...)
		for _, w := range want {
			if err := contains(out, w); err != nil {
				return fmt.Errorf("kubectl %s: %w", args, err)
			}
		}
		return nil
	})
}

// events waits for events of a pod: REASON or REASON: MESSAGE.
func (c *cluster) events(t *testing.T, pod string, want ...string) {
	t.Helper()
	c.sees(t, "get events --field-selector=involvedObject.name="+pod+` -o jsonpath={range.items[*]}{.reason}:{.message}{"\n"}{end}`, want...)
}

const ready = "condition=Ready"

func TestPods(t *testing.T) {
	c := start(t)
	c.quiet = true
	for name, f := range map[string]func(*testing.T, *cluster){
		"log rotation": logRotation, "previous logs": previousLogs, "terminals": terminals, "streams": streams, "probes": probes, "hooks": hooks,
		"environment": environment, "volumes": volumes, "volume updates": volumeUpdates, "security": security, "refused": refused, "images": images,
		"resources": resources, "storage limits": storageLimits,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, c)
		})
	}
}

var flooded = regexp.MustCompile(`(?m)^line (\d+) x+$`)

// logRotation follows a log over the point where it is rotated: no line is missing and none comes twice.
func logRotation(t *testing.T, c *cluster) {
	c.pod(t, "flood", ready, "command: [flood, '11000']")
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := c.command(ctx, "logs", "-f", "flood")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer cancel()
	logs := filepath.Join(c.dir, "data/nodes/node-1/kubelet/logs/default_flood_*/c/0.log.*")
	var rotatedAt, next int
	var rest []byte
	buf := make([]byte, 1<<20)
	for rotatedAt == 0 || next < rotatedAt+20 {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("after line %d: %v", next, err)
		}
		rest = append(rest, buf[:n]...)
		whole := bytes.LastIndexByte(rest, '\n') + 1
		for _, m := range flooded.FindAllSubmatch(rest[:whole], -1) {
			if got, _ := strconv.Atoi(string(m[1])); got != next {
				t.Fatalf("line %d comes where %d is due", got, next)
			}
			next++
		}
		rest = rest[whole:]
		if files, _ := filepath.Glob(logs); rotatedAt == 0 && len(files) > 0 {
			rotatedAt = next
		}
	}
	// What is asked for without following is what is in the newest file.
	if out := c.k(t, "logs flood"); strings.Contains(out, "line 00000000 ") {
		t.Error("the log begins at its beginning, though it was rotated")
	}
	c.k(t, "logs flood --tail=1", "line 0")
}

func previousLogs(t *testing.T, c *cluster) {
	c.pod(t, "crash", "", "command: [sh, -c, 'env; exit 3']")
	c.sees(t, "get pod crash", "CrashLoopBackOff")
	c.k(t, "logs crash -p", "HOSTNAME=crash")
	c.k(t, "logs crash", "HOSTNAME=crash")
	c.events(t, "crash", "BackOff:Back-off restarting failed container c in pod crash_default(")
	c.pod(t, "calm", ready, "command: [sleep]")
	c.fails(t, "", "logs calm -p", `previous terminated container "c" in pod "calm" not found`)
}

// terminals has terminals resized in exec and attach, and followed by run and attach to the exit code.
func terminals(t *testing.T, c *cluster) {
	c.pod(t, "term", ready, "command: [sh], stdin: true, tty: true")
	for _, ws := range []string{"true", "false"} {
		s := c.terminal(t, ws, "exec", "-it", "term", "--", "size")
		s.resizes(t)
		if err := s.end(); err != nil {
			t.Errorf("exec -it: %v\n%s", err, s.shown())
		}
	}
	s := c.terminal(t, "true", "attach", "-it", "term")
	s.expect(t, "If you don't see a command prompt", "")
	s.expect(t, "one two", "echo one two\n")
	s.write(t, "size\n")
	s.resizes(t)
	s.write(t, "exit 0\n")
	if err := s.end(); err != nil {
		t.Errorf("attach -it: %v\n%s", err, s.shown())
	}
	c.sees(t, "get pod term -o jsonpath={.status.phase}{.status.containerStatuses[0].restartCount}", "1")
	s = c.terminal(t, "true", "run", "shell4", "--rm", "-it", "--restart=Never", "--image="+c.image, "--command", "--", "sh")
	s.expect(t, "If you don't see a command prompt", "")
	s.expect(t, "alive", "echo alive\n")
	s.write(t, "exit 4\n")
	if err := s.end(); err == nil || err.Error() != "exit status 4" {
		t.Errorf("run --rm -it: %v, want exit status 4\n%s", err, s.shown())
	}
	c.fails(t, "", "get pod shell4", "not found")
}

// session is kubectl on a terminal.
type session struct {
	cmd  *exec.Cmd
	tty  *os.File
	out  bytes.Buffer
	more chan []byte
}

func (c *cluster) terminal(t *testing.T, websocket string, args ...string) *session {
	t.Helper()
	s := &session{cmd: c.command(t.Context(), args...), more: make(chan []byte)}
	s.cmd.Env = append(s.cmd.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+websocket)
	tty, err := pty.StartWithSize(s.cmd, &pty.Winsize{Cols: 80, Rows: 24})
	if err != nil {
		t.Fatal(err)
	}
	s.tty = tty
	go func() {
		defer close(s.more)
		for {
			buf := make([]byte, 4096)
			n, err := tty.Read(buf)
			if n > 0 {
				s.more <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *session) write(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(s.tty, text); err != nil {
		t.Fatal(err)
	}
}

// expect types and waits for what is shown then.
func (s *session) expect(t *testing.T, want, typed string) {
	t.Helper()
	from := s.out.Len()
	s.write(t, typed)
	timeout := time.After(time.Minute)
	for !strings.Contains(s.out.String()[from:], want) {
		select {
		case b, ok := <-s.more:
			if !ok {
				t.Fatalf("%v ended without %q:\n%s", s.cmd.Args, want, s.shown())
			}
			s.out.Write(b)
		case <-timeout:
			t.Fatalf("%v: no %q in\n%s", s.cmd.Args, want, s.shown())
		}
	}
}

func (s *session) resizes(t *testing.T) {
	t.Helper()
	s.expect(t, "size 80x24", "")
	for _, w := range []pty.Winsize{{Cols: 100, Rows: 30}, {Cols: 132, Rows: 50}} {
		if err := pty.Setsize(s.tty, &w); err != nil {
			t.Fatal(err)
		}
		s.expect(t, fmt.Sprintf("size %dx%d", w.Cols, w.Rows), "")
	}
}

func (s *session) end() error {
	for b := range s.more {
		s.out.Write(b)
	}
	_ = s.tty.Close()
	return s.cmd.Wait()
}

func (s *session) shown() string { return s.out.String() }

// streams has exec, cp and port-forward go over WebSocket and over SPDY.
func streams(t *testing.T, c *cluster) {
	c.pod(t, "served", ready, "command: [httpd]")
	sent := filepath.Join(t.TempDir(), "sent")
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	if err := os.WriteFile(sent, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ws := range []string{"true", "false"} {
		run := func(stdin io.Reader, args ...string) string {
			t.Helper()
			cmd := c.command(t.Context(), args...)
			cmd.Env = append(cmd.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+ws)
			cmd.Stdin = stdin
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("WebSocket %s: kubectl %v: %v\n%s", ws, args, err, out)
			}
			return string(out)
		}
		if out := run(strings.NewReader("typed"), "exec", "-i", "served", "--", "cat"); out != "typed" {
			t.Errorf("WebSocket %s: exec -i: %q", ws, out)
		}
		back := filepath.Join(t.TempDir(), "back")
		run(nil, "cp", sent, "served:/big")
		run(nil, "cp", "served:/big", back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, data) {
			t.Errorf("WebSocket %s: cp: %d bytes come back of %d, %v", ws, len(got), len(data), err)
		}
		c.forwards(t, ws)
	}
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

func (c *cluster) forwards(t *testing.T, ws string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := c.command(ctx, "port-forward", "-v=6", "pod/served", ":8080")
	cmd.Env = append(cmd.Env, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+ws)
	var all bytes.Buffer
	cmd.Stderr = &all
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	m := forwarding.FindStringSubmatch(string(buf[:n]))
	if m == nil {
		t.Fatalf("port-forward says %q", buf[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for range 3 {
		resp, err := http.Get("http://" + m[1] + "/forwarded")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err := contains(string(b), "served /forwarded"); err != nil {
			t.Error(err)
		}
	}
	cancel()
	_ = cmd.Wait()
	if by := strings.Contains(all.String(), "WebSocket Upgrade"); by != (ws == "true") {
		t.Errorf("WebSocket %s: by WebSocket: %v\n%s", ws, by, &all)
	}
}

func probes(t *testing.T, c *cluster) {
	c.apply(t, "apiVersion: v1\nkind: Service\nmetadata: {name: probed}\nspec: {selector: {app: probed}, ports: [{port: 80, targetPort: 8080}]}\n")
	c.pod(t, "probed", "", `command: [probed, "8080", "8090"], volumeMounts: [{name: state, mountPath: /state}],
	  startupProbe: {httpGet: {path: /is/started, port: 8080}, periodSeconds: 1, failureThreshold: 60},
	  readinessProbe: {grpc: {port: 8090, service: grpc}, periodSeconds: 1, failureThreshold: 1},
	  livenessProbe: {exec: {command: [cat, /state/alive]}, periodSeconds: 1, failureThreshold: 1},
	  lifecycle: {postStart: {exec: {command: [touch, /state/alive, /state/started]}}}`, "volumes: [{name: state, emptyDir: {}}]")
	slice := "get endpointslices -l kubernetes.io/service-name=probed -o jsonpath={.items[0].endpoints[0].conditions.ready}"
	status := "get pod probed -o jsonpath=started:{.status.containerStatuses[0].started},ready:{.status.containerStatuses[0].ready},restarts:{.status.containerStatuses[0].restartCount}"
	c.sees(t, status, "started:true,ready:false,restarts:0")
	c.events(t, "probed", `Unhealthy:Readiness probe failed: service unhealthy (responded with "NOT_SERVING")`)
	c.sees(t, slice, "false")
	c.k(t, "exec probed -- touch /state/grpc")
	c.sees(t, slice, "true")
	c.sees(t, status, "started:true,ready:true,restarts:0")
	c.k(t, "exec probed -- rm /state/grpc")
	c.sees(t, slice, "false")
	c.k(t, "exec probed -- rm /state/alive /state/started")
	c.sees(t, status, "started:true,ready:false,restarts:1")
	c.events(t, "probed", "Unhealthy:Liveness probe failed: cat: open /state/alive: no such file or directory", "Killing:Container c failed liveness probe, will be restarted")
	c.k(t, "logs probed -p", "GET /is/started")
	// A startup probe that never succeeds ends the container, which then waits longer and longer.
	c.pod(t, "slow", "", "command: [sleep], startupProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}")
	c.sees(t, "get pod slow", "CrashLoopBackOff")
	c.events(t, "slow", "Unhealthy:Startup probe failed: dial tcp ", "Killing:Container c failed startup probe, will be restarted", "BackOff:Back-off restarting failed container c")
}

func hooks(t *testing.T, c *cluster) {
	c.pod(t, "listener", ready, "command: [httpd]")
	listener := c.k(t, "get pod listener -o jsonpath={.status.podIP}")
	c.pod(t, "hooked", ready, fmt.Sprintf(`command: [sleep], volumeMounts: [{name: state, mountPath: /state}], lifecycle: {postStart: {exec: {command: [touch, /state/hooked]}},
	  preStop: {httpGet: {host: %q, port: 8080, path: /bye-from-hooked}}}`, listener), "volumes: [{name: state, emptyDir: {}}]")
	c.k(t, "exec hooked -- stat /state/hooked", "/state/hooked")
	c.k(t, "delete pod hooked", "deleted")
	c.sees(t, "logs listener", "GET /bye-from-hooked")
	c.pod(t, "badhook", "", "command: [sleep], lifecycle: {postStart: {exec: {command: [cat, /none]}}}")
	c.events(t, "badhook", "FailedPostStartHook:PostStartHook failed", "Killing:FailedPostStartHook")

	took := func(pod string, least, most time.Duration) {
		t.Helper()
		start := time.Now()
		c.k(t, "delete pod "+pod, "deleted")
		if d := time.Since(start); d < least || d > most {
			t.Errorf("%s ends after %v, want between %v and %v", pod, d, least, most)
		}
	}
	long := func(seconds int) string { return fmt.Sprintf("terminationGracePeriodSeconds: %d", seconds) }
	container := func(name, container string, seconds int) {
		t.Helper()
		c.apply(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {%s, containers: [{name: c, image: IMAGE, %s}]}\n", name, long(seconds), container))
		c.k(t, "wait pod/"+name+" --for="+ready+" --timeout=60s", "met")
	}
	container("sleeper", "command: [sleep], lifecycle: {preStop: {sleep: {seconds: 2}}}", 30)
	took("sleeper", 2*time.Second, 15*time.Second)
	container("stubborn", "command: [stubborn]", 2)
	took("stubborn", 2*time.Second, 15*time.Second)
}

const sources = `
apiVersion: v1
kind: ConfigMap
metadata: {name: NAME}
data: {a: "1", b: "2"}
---
apiVersion: v1
kind: Secret
metadata: {name: NAME}
stringData: {a: s1, user: me}
---
`

func environment(t *testing.T, c *cluster) {
	c.apply(t, strings.ReplaceAll(sources, "NAME", "forenv"))
	c.pod(t, "environment", ready, `command: [sleep], resources: {requests: {cpu: 100m}, limits: {memory: 64Mi}},
	  envFrom: [{configMapRef: {name: forenv}, prefix: CM_}, {secretRef: {name: forenv}, prefix: S_}, {configMapRef: {name: none, optional: true}}],
	  env: [{name: PLAIN, value: "$(CM_a)-$(NONE)-$$(x)"}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}},
	    {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}, {name: SA, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}},
	    {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}, {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}},
	    {name: KEY, valueFrom: {configMapKeyRef: {name: forenv, key: b}}}, {name: SECRET, valueFrom: {secretKeyRef: {name: forenv, key: user}}},
	    {name: NOTHING, valueFrom: {secretKeyRef: {name: forenv, key: none, optional: true}}}]`)
	ip := c.k(t, "get pod environment -o jsonpath={.status.podIP}")
	out := c.k(t, "exec environment -- env", "PLAIN=1-$(NONE)-$(x)\n", "NODE=node-1\n", "IP="+ip+"\n", "LABEL=environment\n", "SA=default\n", "MEMORY=67108864\n", "CPU=100\n",
		"KEY=2\n", "SECRET=me\n", "CM_a=1\n", "S_user=me\n", "KUBERNETES_SERVICE_HOST=")
	if strings.Contains(out, "NOTHING") {
		t.Errorf("an optional key that is missing is set:\n%s", out)
	}
}

func volumes(t *testing.T, c *cluster) {
	c.apply(t, strings.ReplaceAll(sources, "NAME", "forvol"))
	c.pod(t, "volumes", ready, `command: [sleep], volumeMounts: [{name: mem, mountPath: /mem}, {name: disk, mountPath: /disk}, {name: cm, mountPath: /cm}, {name: cm, mountPath: /sub/a, subPath: a},
	    {name: sec, mountPath: /sec}, {name: down, mountPath: /down}, {name: proj, mountPath: /proj}, {name: disk, mountPath: /expr, subPathExpr: dir/$(HOSTNAME)}, {name: disk, mountPath: /ro, readOnly: true}]`,
		`securityContext: {fsGroup: 4242}`, `volumes: [{name: mem, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: disk, emptyDir: {}}, {name: cm, configMap: {name: forvol, defaultMode: 0640}},
	    {name: sec, secret: {secretName: forvol, items: [{key: a, path: deep/er/a, mode: 0400}]}}, {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}},
	    {name: proj, projected: {sources: [{serviceAccountToken: {path: token, audience: vault}}, {configMap: {name: forvol, items: [{key: b, path: bee}]}},
	      {downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}}]}}]`)
	c.k(t, "exec volumes -- stat /mem /disk /cm/a /sec/deep/er/a /sub/a", "/mem mode=2777 owner=0:4242 fs=tmpfs size=1048576\n", "/disk mode=2777 owner=0:4242 fs=disk",
		"/cm/a mode=640 owner=0:4242", "/sec/deep/er/a mode=440 owner=0:4242", "/sub/a mode=640")
	c.k(t, "exec volumes -- cat /down/labels /proj/bee /proj/ns /sub/a /sec/deep/er/a", `app="volumes"`+"2default1s1")
	c.fails(t, "", "exec volumes -- fill /mem/big 2000", "no space left on device")
	c.fails(t, "", "exec volumes -- touch /ro/x", "read-only file system")
	c.k(t, "exec volumes -- touch /expr/x")
	c.k(t, "exec volumes -- stat /disk/dir/volumes/x", "/disk/dir/volumes/x")
	// The token is the pod's, for its audience only.
	token := c.k(t, "exec volumes -- cat /var/run/secrets/kubernetes.io/serviceaccount/token")
	out := c.in(t, fmt.Sprintf("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: %q}\n", token), "create --validate=false -o yaml -f -", "authenticated: true", "system:serviceaccount:default:default")
	if err := contains(out, "- volumes\n"); err != nil {
		t.Errorf("the token is not bound to its pod: %v", err)
	}
	token = c.k(t, "exec volumes -- cat /proj/token")
	c.in(t, fmt.Sprintf("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: %q}\n", token), "create --validate=false -o yaml -f -", "error: ")
	c.in(t, fmt.Sprintf("apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: %q, audiences: [vault]}\n", token), "create --validate=false -o yaml -f -", "authenticated: true")
}

// volumeUpdates changes what volumes are made of; a changed annotation has the kubelet look at them at once.
func volumeUpdates(t *testing.T, c *cluster) {
	c.apply(t, strings.ReplaceAll(sources, "NAME", "changing"))
	c.pod(t, "updated", ready, "command: [sleep], volumeMounts: [{name: cm, mountPath: /cm}, {name: cm, mountPath: /once, subPath: a}, {name: sec, mountPath: /sec}, {name: down, mountPath: /down}]",
		"volumes: [{name: cm, configMap: {name: changing}}, {name: sec, secret: {secretName: changing}}, {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]")
	c.k(t, `patch cm changing --type=merge -p {"data":{"a":"new","b":null,"c":"3"}}`, "patched")
	c.k(t, `patch secret changing --type=merge -p {"stringData":{"a":"fresh"}}`, "patched")
	c.k(t, "label pod updated tier=front", "labeled")
	c.sees(t, "exec updated -- cat /cm/a /cm/c /sec/a", "new3fresh")
	c.sees(t, "exec updated -- cat /down/labels", `tier="front"`)
	c.fails(t, "", "exec updated -- cat /cm/b", "no such file")
	// A subPath is mounted once and for all.
	if out := c.k(t, "exec updated -- cat /once"); out != "1" {
		t.Errorf("the subPath holds %q, want what it held", out)
	}
}

func security(t *testing.T, c *cluster) {
	c.pod(t, "confined", ready, `command: [sleep], volumeMounts: [{name: v, mountPath: /v}],
	  securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, runAsNonRoot: true, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}`,
		"volumes: [{name: v, emptyDir: {}}]", "securityContext: {runAsUser: 1234, runAsGroup: 99, fsGroup: 4242, supplementalGroups: [77], seccompProfile: {type: RuntimeDefault}}")
	c.k(t, "exec confined -- id", "uid=1234 gid=99 groups=[77 99 4242]", "CapEff:0000000000000000\n", "CapBnd:0000000000000400\n", "NoNewPrivs:1\n", "Seccomp:2\n")
	c.fails(t, "", "exec confined -- touch /x", "read-only file system")
	c.k(t, "exec confined -- touch /v/x")
	c.k(t, "exec confined -- stat /v/x", "owner=1234:4242")
	c.pod(t, "sysctl", ready, "command: [sleep]", "securityContext: {sysctls: [{name: net.ipv4.ip_unprivileged_port_start, value: '5'}]}")
	c.k(t, "exec sysctl -- cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "5\n")
	c.pod(t, "privileged", ready, "command: [sleep], securityContext: {privileged: true}")
	c.k(t, "exec privileged -- id", "Seccomp:0\n")
	if out := c.k(t, "exec privileged -- id"); strings.Contains(out, "CapEff:00000000a00425fb") {
		t.Errorf("a privileged container has the capabilities of any:\n%s", out)
	}
}

// refused is what this node can't do: it says so, by the pod's status and by an event.
func refused(t *testing.T, c *cluster) {
	for _, tc := range []struct{ name, container, spec, status, event string }{
		{"nonroot", "securityContext: {runAsNonRoot: true}", "", "CreateContainerConfigError", "Failed:Error: container has runAsNonRoot and image will run as root (pod: \"nonroot_default("},
		{"seccomp", "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x}}", "", "CreateContainerError", "Failed:Error: Localhost security profiles are not supported by this runtime (x)"},
		{"badcap", "securityContext: {capabilities: {add: [NOPE]}}", "", "CreateContainerError", `Failed:Error: unknown capability "NOPE"`},
		{"bidirectional", "securityContext: {privileged: true}, volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]", "volumes: [{name: v, emptyDir: {}}]", "CreateContainerError",
			"Failed:Error: mount /v: bidirectional propagation is not supported by this runtime"},
		{"hostusers", "", "hostUsers: false", "UnexpectedAdmissionError", "UnexpectedAdmissionError:hostUsers: false is not supported by this node"},
		{"unsafe", "", "securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}", "SysctlForbidden", `SysctlForbidden:forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{"nfs", "", "volumes: [{name: v, nfs: {server: x, path: /}}]", "ContainerCreating", `FailedMount:MountVolume.SetUp failed for volume "v" : volumes of type nfs are not supported by this node`},
		{"nomap", "", "volumes: [{name: v, configMap: {name: none}}]", "ContainerCreating", `FailedMount:MountVolume.SetUp failed for volume "v" : configmap "none" not found`},
		{"nokey", "env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: x}}}]", "", "CreateContainerConfigError", `Failed:Error: secret "none" not found`},
		{"noprogram", "command: [nothere]", "", "RunContainerError", `Failed:Error: failed to start container: exec: "nothere": executable file not found in $PATH`},
	} {
		if tc.container == "" {
			tc.container = "command: [sleep]"
		}
		var spec []string
		if tc.spec != "" {
			spec = append(spec, tc.spec)
		}
		c.pod(t, tc.name, "", tc.container, spec...)
		c.events(t, tc.name, tc.event)
		if tc.name != "noprogram" { // which is in its back-off soon
			c.sees(t, "get pod "+tc.name, tc.status)
		}
	}
	if _, err := os.Stat("/sys/module/apparmor"); err != nil {
		c.pod(t, "apparmor", "", "command: [sleep], securityContext: {appArmorProfile: {type: RuntimeDefault}}")
		c.events(t, "apparmor", "AppArmor:Cannot enforce AppArmor: AppArmor is not enabled on the host")
	}
}

func images(t *testing.T, c *cluster) {
	run := func(name, image, policy string) {
		t.Helper()
		c.k(t, "run "+name+" --image="+image+" --image-pull-policy="+policy+" --command -- sleep", "created")
	}
	run("always", c.image, "Always")
	c.events(t, "always", fmt.Sprintf("Pulling:Pulling image %q", c.image), fmt.Sprintf("Pulled:Successfully pulled image %q in ", c.image), "Image size: ")
	run("present", c.image, "IfNotPresent")
	c.events(t, "present", fmt.Sprintf("Pulled:Container image %q already present on machine", c.image))
	missing := strings.Replace(c.image, ":v1", ":v9", 1)
	run("never", missing, "Never")
	c.events(t, "never", fmt.Sprintf("ErrImageNeverPull:Container image %q is not present with pull policy of Never", missing), "Failed:Error: ErrImageNeverPull")
	c.sees(t, "get pod never", "ErrImageNeverPull")
	run("missing", missing, "IfNotPresent")
	c.events(t, "missing", fmt.Sprintf("Failed:Failed to pull image %q: ", missing), "Failed:Error: ErrImagePull", "Failed:Error: ImagePullBackOff", fmt.Sprintf("BackOff:Back-off pulling image %q", missing))
	c.sees(t, "get pod missing", "ImagePullBackOff")
	c.fails(t, "", "logs missing", `container "missing" in pod "missing" is waiting to start: trying and failing to pull image`)
	c.apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: badname}\nspec: {containers: [{name: c, image: 'UPPER:::x'}]}\n")
	c.sees(t, "get pod badname", "InvalidImageName")
}

func resources(t *testing.T, c *cluster) {
	for name, tc := range map[string]struct{ resources, qos, shares string }{
		"guaranteed": {"limits: {cpu: 500m, memory: 64Mi}", "Guaranteed", "512"},
		"burstable":  {"requests: {cpu: 100m}, limits: {cpu: 250m, memory: 64Mi}", "Burstable", "102"},
		"besteffort": {"", "BestEffort", "2"},
	} {
		c.pod(t, name, ready, "command: [sleep], resources: {"+tc.resources+"}")
		c.k(t, "get pod "+name+" -o jsonpath={.status.qosClass}", tc.qos)
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
			if tc.resources != "" {
				c.k(t, "exec "+name+" -- cat /sys/fs/cgroup/memory.max", "67108864\n")
			}
			continue
		}
		c.k(t, "exec "+name+" -- cat /sys/fs/cgroup/cpu/cpu.shares", tc.shares+"\n")
		if tc.resources != "" {
			quota := map[string]string{"guaranteed": "50000", "burstable": "25000"}[name]
			c.k(t, "exec "+name+" -- cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "67108864\n"+quota+"\n")
		}
	}
	c.k(t, "exec besteffort -- cat /proc/1/oom_score_adj", "1000\n")
	c.pod(t, "glutton", "jsonpath={.status.phase}=Failed", "command: [fill, /m/x, '200000'], resources: {limits: {memory: 40Mi}}, volumeMounts: [{name: m, mountPath: /m}]",
		"restartPolicy: Never", "volumes: [{name: m, emptyDir: {medium: Memory}}]")
	c.k(t, "get pod glutton -o jsonpath={.status.containerStatuses[0].state.terminated.reason}", "OOMKilled")
}

func storageLimits(t *testing.T, c *cluster) {
	c.pod(t, "hoarder", ready, "command: [sleep], volumeMounts: [{name: v, mountPath: /v}]", "volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]")
	c.pod(t, "scribbler", ready, "command: [sleep], resources: {limits: {ephemeral-storage: 1Mi}}")
	c.pod(t, "modest", ready, "command: [sleep], volumeMounts: [{name: v, mountPath: /v}], resources: {limits: {ephemeral-storage: 4Mi}}", "volumes: [{name: v, emptyDir: {sizeLimit: 2Mi}}]")
	c.k(t, "exec hoarder -- fill /v/big 2000")
	c.k(t, "exec scribbler -- fill /big 2000")
	c.k(t, "exec modest -- fill /v/big 1000")
	c.events(t, "hoarder", `Evicted:Usage of EmptyDir volume "v" exceeds the limit "1Mi". `)
	c.events(t, "scribbler", `Evicted:Container c exceeded its local ephemeral storage limit "1Mi". `)
	c.sees(t, "get pod hoarder -o jsonpath={.status.phase},{.status.reason}", "Failed,Evicted")
	c.k(t, "get pod modest", "Running")
}
