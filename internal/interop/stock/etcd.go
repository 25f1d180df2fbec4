package stock

import (
	"fmt"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/client-go/rest"
)

// EtcdOptions of StartEtcd.
type EtcdOptions struct {
	// Dir keeps the data, and what it prints; empty is a new one that goes with the test.
	Dir string
	// NoFsync makes writes fast and lets a power cut, but no crash, lose them.
	NoFsync bool
	// CA, Cert and Key make it serve with TLS, to clients that have a certificate of the same authority only. They are
	// files, and the certificate is good for both sides.
	CA, Cert, Key string
	// Args come behind the arguments that it has otherwise, so that they win.
	Args []string
}

// Etcd is a member of an etcd.
type Etcd struct {
	*Process
	// Name and data directory of the member.
	Name, Dir string
}

// StartEtcd starts an etcd of one member that lives until the test ends.
func StartEtcd(t testing.TB, opts EtcdOptions) *Etcd {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	client, peer := FreePort(t), FreePort(t)
	url, peerURL := fmt.Sprintf("http://127.0.0.1:%d", client), fmt.Sprintf("http://127.0.0.1:%d", peer)
	if opts.Cert != "" {
		url = fmt.Sprintf("https://127.0.0.1:%d", client)
	}
	return startMember(t, opts, "default", url, []string{
		"--listen-peer-urls=" + peerURL, "--initial-advertise-peer-urls=" + peerURL, "--initial-cluster=default=" + peerURL,
	})
}

func startMember(t testing.TB, opts EtcdOptions, name, url string, args []string) *Etcd {
	t.Helper()
	args = append([]string{
		"--name=" + name, "--data-dir=" + opts.Dir + "/data", "--log-level=warn", "--unsafe-no-fsync=" + strconv.FormatBool(opts.NoFsync),
		"--listen-client-urls=" + url, "--advertise-client-urls=" + url,
	}, args...)
	var cfg *rest.Config
	if opts.Cert != "" {
		args = append(args, "--cert-file="+opts.Cert, "--key-file="+opts.Key, "--trusted-ca-file="+opts.CA, "--client-cert-auth")
		cfg = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: opts.CA, CertFile: opts.Cert, KeyFile: opts.Key}}
		if err := rest.LoadTLSFiles(cfg); err != nil {
			t.Fatal(err)
		}
	}
	return &Etcd{Process: start(t, EtcdServer, opts.Dir, append(args, opts.Args...), url, answers(cfg, url+"/readyz")), Name: name, Dir: opts.Dir}
}

// SecureEtcd has an etcd ask for passwords: of root, which is "secret", and of app, which is "word" and may read and write what begins with /app/.
func SecureEtcd(t *testing.T, admin *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := admin.RoleAdd(ctx, "root"); return err },
		func() error { _, err := admin.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := admin.RoleAdd(ctx, "app"); return err },
		func() error {
			_, err := admin.RoleGrantPermission(ctx, "app", "/app/", "/app0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := admin.UserAdd(ctx, "app", "word"); return err },
		func() error { _, err := admin.UserGrantRole(ctx, "app", "app"); return err },
		func() error { _, err := admin.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}
