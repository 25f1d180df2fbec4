package plugin_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/keelson/keelson/cni"
	"github.com/keelson/keelson/cni/cnitest"
	"github.com/keelson/keelson/cni/plugin"
)

// fake is a plugin of the CNI specification that counts addresses up in a file.
const fake = `#!/bin/sh
state=$(dirname "$0")/state
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
ADD)
	if [ "$CNI_CONTAINERID" = refused ]; then echo '{"cniVersion":"1.0.0","code":11,"msg":"try again"}'; exit 1; fi
	mkdir -p $state; : >$state/$CNI_CONTAINERID
	n=1; while ! mkdir $state/ip$n 2>/dev/null; do n=$((n+1)); done
	echo $n >$state/$CNI_CONTAINERID
	echo "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.9.0.$n/24\"}]}" ;;
DEL)
	if [ -f $state/$CNI_CONTAINERID ]; then rmdir $state/ip$(cat $state/$CNI_CONTAINERID); rm $state/$CNI_CONTAINERID; fi ;;
esac
`

func install(t testing.TB, dir string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake plugin is a shell script")
	}
	if err := os.WriteFile(filepath.Join(dir, "fake"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"fake"}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-net.conflist"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *plugin.Network {
	t.Helper()
	n, err := plugin.New(plugin.Options{ConfDir: dir, BinDirs: []string{dir}, CacheDir: filepath.Join(dir, "cache")})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSuite(t *testing.T) {
	var dir string
	cnitest.Run(t, cnitest.Config{
		New:    func(t testing.TB) cni.Network { dir = t.TempDir(); install(t, dir); return open(t, dir) },
		Reopen: func(t testing.TB) cni.Network { return open(t, dir) },
		NetNS:  func(testing.TB) string { return "/proc/self/ns/net" },
	})
}

func TestErrorsSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir)
	if err := n.Status(t.Context()); err == nil {
		t.Error("no configuration: Status is nil")
	}
	install(t, dir)
	if _, err := n.Setup(t.Context(), cni.Sandbox{ID: "refused", NetNS: "/proc/self/ns/net"}); err == nil {
		t.Error("the plugin's error is lost")
	}
	if err := os.Remove(filepath.Join(dir, "fake")); err != nil {
		t.Fatal(err)
	}
	if err := n.Status(t.Context()); err == nil {
		t.Error("no plugin: Status is nil")
	}
}
