package etcdserve

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/keelson/keelson/apiserver/auth/ca"
	"github.com/keelson/keelson/internal/interop/stock"
)

// securedEtcd starts an etcd with TLS that knows users by their passwords: "app" may do what it likes with keys that begin with /app/, and
// nothing else. It returns storectl's flags for it.
func securedEtcd(t *testing.T) (store string, secured []string) {
	t.Helper()
	dir := t.TempDir()
	authority, err := ca.New(ca.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(ca.Request{
		Subject: pkix.Name{CommonName: "root"}, Hosts: []string{"127.0.0.1"},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		t.Fatal(err)
	}
	cacert, cert, key := filepath.Join(dir, ca.CertificateFile), filepath.Join(dir, "etcd.crt"), filepath.Join(dir, "etcd.key")
	if err := errors.Join(os.WriteFile(cert, pair.CertificatePEM, 0o600), os.WriteFile(key, pair.KeyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	url := stock.StartEtcd(t, stock.EtcdOptions{NoFsync: true, CA: cacert, Cert: cert, Key: key}).URL
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := clientv3.New(clientv3.Config{
		Endpoints: []string{url}, Logger: zap.NewNop(), TLS: &tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{certificate}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	stock.SecureEtcd(t, admin)
	// A certificate that is nobody's name among the users; the password has to say who it is.
	nobody, err := authority.Client("nobody")
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
	if err := errors.Join(os.WriteFile(cert, nobody.CertificatePEM, 0o600), os.WriteFile(key, nobody.KeyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	return "etcd=" + url, []string{"-cacert", cacert, "-cert", cert, "-key", key}
}

// The command reaches a secured etcd by a user's password, with certificates, under a prefix.
func TestStorectlOnSecuredEtcd(t *testing.T) {
	exe, err := storectl()
	if err != nil {
		t.Fatal(err)
	}
	etcd, secured := securedEtcd(t)
	command := func(password, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), exe, append([]string{name}, args...)...)
		cmd.Env = append(os.Environ(), "STORECTL_PASSWORD="+password)
		return cmd
	}
	app := append(append([]string{}, secured...), "-user", "app", "-key-prefix", "/app/")
	do := func(name string, args ...string) string {
		t.Helper()
		out, err := command("word", name, append(app[:len(app):len(app)], args...)...).Output()
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("storectl %s %q: %s", name, args, failed.Stderr)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	do("put", "-store", etcd, "a", "1")
	if got := do("get", "-store", etcd, "a"); got != "1" {
		t.Errorf("get prints %q", got)
	}
	if got := do("list", "-store", etcd, "-prefix", "a", "-values"); !strings.HasPrefix(got, "a\tcreated ") || strings.Count(got, "\n") != 1 {
		t.Errorf("list prints %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch := exec.CommandContext(ctx, exe, append([]string{"watch", "-store", etcd, "-values", "-revision", "1"}, app...)...)
	watch.Env = append(os.Environ(), "STORECTL_PASSWORD=word")
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	do("put", "-store", etcd, "a", "2")
	do("delete", "-store", etcd, "a")
	do("put", "-store", etcd, "b", "3")
	lines := bufio.NewScanner(out)
	for _, want := range []string{"created\ta", "updated\ta", "deleted\ta", "created\tb"} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Errorf("watch prints %q, want %s", lines.Text(), want)
		}
	}
	if err := watch.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := watch.Wait(); err != nil {
		t.Errorf("an interrupted watch: %v", err)
	}
	saved := do("snapshot", "-store", etcd, "-o", file)
	if got, err := command("", "verify", "-i", file).Output(); err != nil || string(got) != saved {
		t.Errorf("verify prints %q after %q, %v", got, saved, err)
	}
	local := "bolt=" + filepath.Join(dir, "local")
	do("copy", "-from", etcd, "-to", local)
	if got := do("compare", "-from", etcd, "-to", local); got != "1 keys are the same\n" {
		t.Errorf("compare prints %q", got)
	}
	// Into the same etcd, beside what is there; users other than root may not compact it.
	app[len(app)-1] = "/app/restored/"
	do("restore", "-store", etcd, "-i", file, "-keep-revisions")
	if got := do("get", "-store", etcd, "b"); got != "3" {
		t.Errorf("get prints %q", got)
	}
	for what, try := range map[string]struct {
		cmd  *exec.Cmd
		want string
	}{
		"a wrong password": {command("wrong", "list", append(app[:len(app):len(app)], "-store", etcd)...), "invalid user ID or password"},
		"no user":          {command("", "list", append(secured[:len(secured):len(secured)], "-store", etcd, "-key-prefix", "/app/")...), "permission denied"},
		"a prefix of which only a part is allowed": {command("word", "watch", append(secured[:len(secured):len(secured)], "-store", etcd, "-user", "app", "-key-prefix", "/app")...), "permission denied"},
		"a prefix that is forbidden":               {command("word", "list", append(secured[:len(secured):len(secured)], "-store", etcd, "-user", "app", "-key-prefix", "/other")...), "permission denied"},
		"no certificate":                           {command("word", "list", "-store", etcd, "-cacert", secured[1], "-user", "app", "-key-prefix", "/app/"), "connect to"},
	} {
		if out, err := try.cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), try.want) {
			t.Errorf("%s: storectl prints %q, %v; want %q", what, out, err, try.want)
		}
	}
}
