package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"path"
	"sort"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type dockerAuth struct {
	Username, Password, Auth, IdentityToken, RegistryToken string
}

// credentials collects those of the pull secrets that are for the image's registry. Secrets that don't exist are passed over,
// as a pod may name ones that come later.
func (m *Manager) credentials(ctx context.Context, r Request, image reference.Named) ([]*runtimeapi.AuthConfig, error) {
	if len(r.Secrets) == 0 || image == nil {
		return nil, nil
	}
	all := map[string][]dockerAuth{}
	for _, name := range r.Secrets {
		s, err := m.secrets.Secret(ctx, r.Namespace, name)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pull secret %s/%s: %w", r.Namespace, name, err)
		}
		auths, err := parseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("pull secret %s/%s: %w", r.Namespace, name, err)
		}
		for server, a := range auths {
			all[server] = append(all[server], a)
		}
	}
	return match(all, image), nil
}

func parseSecret(s *corev1.Secret) (map[string]dockerAuth, error) {
	out := map[string]dockerAuth{}
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]dockerAuth `json:"auths"`
		}
		if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &config); err != nil {
			return nil, err
		}
		out = config.Auths
	case corev1.SecretTypeDockercfg:
		if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &out); err != nil {
			return nil, err
		}
	}
	for server, a := range out {
		if a.Auth != "" {
			raw, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				if raw, err = base64.RawStdEncoding.DecodeString(a.Auth); err != nil {
					return nil, fmt.Errorf("unable to decode the auth field of %q", server)
				}
			}
			user, password, ok := strings.Cut(string(raw), ":")
			if !ok {
				return nil, fmt.Errorf("unable to parse the auth field of %q", server)
			}
			a.Username, a.Password = user, password
			out[server] = a
		}
	}
	return out, nil
}

// match picks the credentials whose server is the image's registry, the most specific path first. Servers may have a scheme, a
// path that has to be a prefix of the image's, and * for parts of their names.
func match(all map[string][]dockerAuth, image reference.Named) []*runtimeapi.AuthConfig {
	domain, name := reference.Domain(image), reference.Path(image)
	var servers []string
	for server := range all {
		if matchServer(server, domain, name) {
			servers = append(servers, server)
		}
	}
	sort.Slice(servers, func(i, j int) bool {
		if a, b := len(serverPath(servers[i])), len(serverPath(servers[j])); a != b {
			return a > b
		}
		return servers[i] < servers[j]
	})
	var out []*runtimeapi.AuthConfig
	for _, server := range servers {
		for _, a := range all[server] {
			out = append(out, &runtimeapi.AuthConfig{Username: a.Username, Password: a.Password, Auth: a.Auth, ServerAddress: domain, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken})
		}
	}
	return out
}

func serverPath(server string) string {
	_, p, _ := strings.Cut(bare(server), "/")
	p = strings.Trim(p, "/")
	// The API's version is no part of an image's name.
	if p == "v1" || p == "v2" {
		return ""
	}
	return p
}

func bare(server string) string {
	server = strings.TrimPrefix(server, "https://")
	return strings.TrimPrefix(server, "http://")
}

func matchServer(server, domain, name string) bool {
	host, _, _ := strings.Cut(bare(server), "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	hostPort, domainPort := "", ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, hostPort = h, p
	}
	if h, p, err := net.SplitHostPort(domain); err == nil {
		domain, domainPort = h, p
	}
	if hostPort != domainPort {
		return false
	}
	want, have := strings.Split(host, "."), strings.Split(domain, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	p := serverPath(server)
	return p == "" || name == p || strings.HasPrefix(name, p+"/")
}
