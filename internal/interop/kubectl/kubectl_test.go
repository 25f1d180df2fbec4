package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const manifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, annotations: {note: edited=no}}
data: {greeting: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: IMAGE
        command: [httpd]
        env:
        - {name: LISTEN, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: settings, mountPath: /etc/settings}]
      volumes: [{name: settings, configMap: {name: settings}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 8081, targetPort: 8080}]}
`

func TestKubectl(t *testing.T) {
	c := start(t, "-nodes", "2")
	file := filepath.Join(c.dir, "web.yaml")
	write := func(from, to string) {
		text := strings.ReplaceAll(strings.ReplaceAll(manifest, "IMAGE", c.image), from, to)
		if os.Geteuid() != 0 { // pods share the host's network: each listens on its own address
			text = strings.ReplaceAll(text, "LISTEN", "POD_IP")
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("", "")

	t.Run("apply", func(t *testing.T) {
		c.k(t, "apply -f "+file, "deployment.apps/web created", "service/web created", "configmap/settings created")
		c.k(t, "apply -f "+file, "deployment.apps/web unchanged")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
	})
	t.Run("get", func(t *testing.T) {
		c.k(t, "get pods -l app=web -o wide", "READY", "NODE", "node-", "1/1", "Running")
		c.k(t, "get deploy web -o yaml", "availableReplicas: 2", "kind: Deployment")
		c.k(t, "get all", "replicaset.apps/web-", "service/web", "deployment.apps/web")
		c.k(t, "get nodes -o wide", "node-1", "node-2", "Ready", "INTERNAL-IP")
		c.k(t, "get cm settings -o jsonpath={.data.greeting}", "hello")
		c.k(t, "get pods -A --field-selector status.phase=Running --sort-by .metadata.name --show-labels", "app=web")
		c.k(t, "get --raw /readyz?verbose", "readyz check passed")
		c.fails(t, "", "get pod missing", `pods "missing" not found`)
		c.fails(t, "", "get nonsense", "the server doesn't have a resource type \"nonsense\"")
	})
	t.Run("get -w", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := c.command(ctx, "get", "cm", "-w", "--output-watch-events")
		out, err := w.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		seen := make(chan string, 100)
		go func() {
			buf := make([]byte, 4096)
			for {
				n, err := out.Read(buf)
				if err != nil {
					close(seen)
					return
				}
				seen <- string(buf[:n])
			}
		}()
		all := <-seen
		c.k(t, "create cm watched --from-literal=a=b", "created")
		for !strings.Contains(all, "watched") {
			s, ok := <-seen
			if !ok {
				t.Fatalf("watch ended: %s", all)
			}
			all += s
		}
		cancel()
		_ = w.Wait()
	})
	t.Run("describe", func(t *testing.T) {
		c.k(t, "describe pods -l app=web --show-events", "Successfully assigned default/web-", "Container started", "Ready:          True", "set to the key 'greeting'")
		c.k(t, "describe node node-1", "Allocatable:", "Non-terminated Pods", "MemoryPressure")
		c.k(t, "describe svc web", "Endpoints:", ":8080")
		c.k(t, "describe deploy web", "RollingUpdateStrategy", "ScalingReplicaSet")
	})
	t.Run("server-side apply", func(t *testing.T) {
		one := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ssa}\ndata: {a: one}\n"
		c.in(t, one, "apply --server-side -f -", "configmap/ssa serverside-applied")
		c.in(t, one, "apply --server-side --field-manager=other -f -", "serverside-applied")
		c.fails(t, strings.Replace(one, "one", "two", 1), "apply --server-side --field-manager=third -f -", "conflict")
		c.in(t, strings.Replace(one, "one", "two", 1), "apply --server-side --field-manager=third --force-conflicts -f -", "serverside-applied")
		c.k(t, "get cm ssa -o yaml --show-managed-fields", "manager: third", "operation: Apply")
	})
	t.Run("create", func(t *testing.T) {
		c.k(t, "create ns extra", "namespace/extra created")
		c.k(t, "create deploy d --image="+c.image+" --replicas=1 -n extra", "created")
		c.k(t, "create job once --image="+c.image+" -- echo done", "job.batch/once created")
		c.k(t, "create secret generic s --from-literal=k=v", "secret/s created")
		c.k(t, "create sa robot", "serviceaccount/robot created")
		c.k(t, "create token robot", "ey")
		c.k(t, "create role reader --verb=get,list --resource=pods", "created")
		c.k(t, "create rolebinding reader --role=reader --serviceaccount=default:robot", "created")
		c.k(t, "create quota q --hard=configmaps=100", "created")
		c.k(t, "wait job/once --for=condition=complete --timeout=60s", "condition met")
		c.k(t, "logs job/once", "done")
		c.fails(t, "", "create ns extra", `namespaces "extra" already exists`)
	})
	t.Run("edit, patch, label, annotate", func(t *testing.T) {
		c.k(t, "edit cm settings", "edited")
		c.k(t, "get cm settings -o yaml", "edited=yes")
		c.k(t, `patch cm settings --type=merge -p {"data":{"x":"1"}}`, "patched")
		c.k(t, `patch cm settings --type=json -p [{"op":"add","path":"/data/y","value":"2"}]`, "patched")
		c.k(t, `patch deploy web -p {"spec":{"template":{"metadata":{"labels":{"strategic":"yes"}}}}}`, "patched")
		c.k(t, `patch deploy web --subresource=status --type=merge -p {"status":{"observedGeneration":1}}`, "deployment.apps/web patched")
		c.k(t, "label cm settings tier=front", "labeled")
		c.k(t, "annotate cm settings a=b", "annotated")
		c.k(t, "get cm settings -o yaml", `x: "1"`, `"y": "2"`, "tier: front")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
		c.fails(t, "", `patch cm settings --type=merge -p {"data":{"x":1}}`, "cannot unmarshal")
	})
	t.Run("validation", func(t *testing.T) {
		c.fails(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\nspec: {}\n", "create -f -", `unknown field "spec"`)
		c.fails(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}\n", "create -f -", "a lowercase RFC 1123 subdomain")
		c.fails(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: bad}\nspec: {}\n", "create --validate=false -f -", "spec.containers: Required value")
	})
	t.Run("scale", func(t *testing.T) {
		c.k(t, "scale deploy/web --replicas=4", "scaled")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
		c.k(t, "get deploy web", "4/4")
		c.k(t, "scale deploy/web --replicas=2", "scaled")
		c.k(t, "autoscale deploy/web --max=3", "autoscaled")
		c.k(t, "delete hpa web", "deleted")
	})
	t.Run("service", func(t *testing.T) {
		ip := c.k(t, "get svc web -o jsonpath={.spec.clusterIP}")
		eventually(t, func() error {
			resp, err := (&http.Client{Timeout: 10 * time.Second}).Get("http://" + ip + ":8081/")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return contains(string(b), "web-")
		})
		c.k(t, "get --raw /api/v1/namespaces/default/services/web:8081/proxy/through", "/through")
		if os.Geteuid() == 0 {
			eventually(t, func() error {
				out, err := c.try("", "exec", "deploy/web", "--", "get", "http://web.default.svc:8081/dns")
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return contains(out, "/dns")
			})
		}
	})
	t.Run("rollout", func(t *testing.T) {
		c.k(t, "set image deploy/web web="+strings.Replace(c.image, ":v1", ":v2", 1), "image updated")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
		c.k(t, "rollout history deploy/web", "REVISION")
		c.k(t, "rollout undo deploy/web", "rolled back")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
		c.k(t, "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}", c.image)
		c.k(t, "rollout restart deploy/web", "restarted")
		c.k(t, "rollout status deploy/web --timeout=60s", "successfully rolled out")
		c.k(t, "rollout pause deploy/web", "paused")
		c.k(t, "rollout resume deploy/web", "resumed")
	})
	t.Run("diff", func(t *testing.T) {
		write("replicas: 2", "replicas: 3")
		out, err := c.try("", "diff", "-f", file)
		if err == nil || !strings.Contains(out, "+  replicas: 3") {
			t.Errorf("diff: %v\n%s", err, out)
		}
		write("", "")
	})
	t.Run("logs -f", func(t *testing.T) {
		c.k(t, "run ticker --image="+c.image+" --restart=Never --command -- ticker", "created")
		c.k(t, "wait pod/ticker --for=condition=Ready --timeout=60s", "met")
		c.follow(t, "tick 15", "logs", "-f", "ticker")
		c.k(t, "logs ticker --tail=1 --timestamps", "tick", "T")
	})
	t.Run("exec", func(t *testing.T) {
		c.k(t, "exec ticker -- echo hi there", "hi there")
		c.in(t, "from stdin", "exec -i ticker -- cat", "from stdin")
		if out, err := c.try("", "exec", "ticker", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(out, "exit code 7") {
			t.Errorf("exit code: %v\n%s", err, out)
		}
	})
	t.Run("exec -it", func(t *testing.T) {
		s := c.terminal(t, "true", "exec", "-it", "ticker", "--", "sh")
		s.expect(t, "in a terminal", "echo in a terminal\n")
		s.write(t, "exit 0\n")
		if err := s.end(); err != nil {
			t.Errorf("%v\n%s", err, s.shown())
		}
	})
	t.Run("attach", func(t *testing.T) {
		c.follow(t, "tick", "attach", "ticker")
	})
	t.Run("run --rm -it", func(t *testing.T) {
		s := c.terminal(t, "true", "run", "shell", "--rm", "-it", "--restart=Never", "--image="+c.image, "--command", "--", "sh")
		s.expect(t, "If you don't see a command prompt", "")
		s.expect(t, "alive", "echo alive\n")
		s.write(t, "exit 0\n")
		if err := s.end(); err != nil {
			t.Errorf("%v\n%s", err, s.shown())
		}
		c.fails(t, "", "get pod shell", "not found")
	})
	t.Run("cp", func(t *testing.T) {
		from, back := filepath.Join(c.dir, "sent"), filepath.Join(c.dir, "returned")
		if err := os.WriteFile(from, []byte("through tar"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.k(t, "cp "+from+" ticker:/tmp/sent")
		c.k(t, "exec ticker -- cat /tmp/sent", "through tar")
		c.k(t, "cp ticker:/tmp/sent "+back)
		if b, err := os.ReadFile(back); err != nil || string(b) != "through tar" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := c.command(ctx, "port-forward", "svc/web", ":8081")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var addr string
		buf := make([]byte, 1024)
		n, err := out.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range strings.Fields(string(buf[:n])) {
			if strings.HasPrefix(w, "127.0.0.1:") {
				addr = w
			}
		}
		for range 3 {
			resp, err := http.Get("http://" + addr + "/forwarded")
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err := contains(string(b), "/forwarded"); err != nil {
				t.Error(err)
			}
		}
		cancel()
		_ = cmd.Wait()
	})
	t.Run("auth", func(t *testing.T) {
		c.k(t, "auth can-i create pods", "yes")
		c.k(t, "auth can-i list pods --as=system:serviceaccount:default:robot", "yes")
		if out, err := c.try("", "auth", "can-i", "delete", "pods", "--as=system:serviceaccount:default:robot"); err == nil || !strings.Contains(out, "no") {
			t.Errorf("can-i: %v %s", err, out)
		}
		c.k(t, "auth whoami", "kubernetes-admin")
		c.k(t, "auth can-i --list", "*.*")
		c.fails(t, "", "get secrets --as=system:serviceaccount:default:robot", `User "system:serviceaccount:default:robot" cannot list resource "secrets"`)
	})
	t.Run("explain and discovery", func(t *testing.T) {
		c.k(t, "explain pod.spec.containers.livenessProbe", "Periodic probe", "FIELDS")
		c.k(t, "explain deployment --recursive", "progressDeadlineSeconds")
		c.k(t, "api-resources", "deployments", "persistentvolumeclaims", "networking.k8s.io/v1")
		c.k(t, "api-versions", "apps/v1", "batch/v1")
		c.k(t, "version", "Server Version")
		c.k(t, "cluster-info", "Kubernetes control plane")
	})
	if os.Geteuid() != 0 {
		t.Run("what is not enforced", func(t *testing.T) {
			c.pod(t, "limited", ready, "command: [sleep], resources: {limits: {cpu: 100m, memory: 64Mi}}", "securityContext: {fsGroup: 7}")
			c.events(t, "limited", "NotEnforced:This node cannot enforce the CPU limit, the memory limit, supplementalGroups and fsGroup")
		})
	}
	t.Run("nodes", func(t *testing.T) {
		c.k(t, "taint node node-2 k=v:NoSchedule", "tainted")
		c.k(t, "taint node node-2 k-", "untainted")
		c.k(t, "cordon node-2", "cordoned")
		c.k(t, "get node node-2", "SchedulingDisabled")
		c.k(t, "drain node-2 --ignore-daemonsets --force --delete-emptydir-data --timeout=80s", "drained")
		if out := c.k(t, "get pods -l app=web -o wide"); strings.Contains(out, "node-2") && !strings.Contains(out, "Terminating") {
			t.Errorf("after drain: %s", out)
		}
		c.k(t, "uncordon node-2", "uncordoned")
	})
	t.Run("kustomize, replace, events, top of errors", func(t *testing.T) {
		c.in(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: watched}\ndata: {a: c}\n", "replace -f -", "replaced")
		c.k(t, "events --for deploy/web", "ScalingReplicaSet")
		var list struct {
			Items []json.RawMessage `json:"items"`
		}
		if err := json.Unmarshal([]byte(c.k(t, "get events -o json")), &list); err != nil || len(list.Items) == 0 {
			t.Errorf("events: %v, %d", err, len(list.Items))
		}
	})
	t.Run("delete", func(t *testing.T) {
		c.k(t, "delete ns extra --timeout=60s", "deleted")
		c.k(t, "delete -f "+file+" --timeout=60s", "deleted")
		c.k(t, "delete pod ticker --ignore-not-found --grace-period=1 --timeout=30s")
		c.k(t, "wait pod -l app=web --for=delete --timeout=60s")
		c.k(t, "delete cm --all", "deleted")
	})
}
