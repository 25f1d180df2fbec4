//go:build linux

package processruntime

import (
	"bufio"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/keelson/keelson/kubelet/processruntime/internal/shim"
)

type userInfo struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// user finds whom the process runs as: the security context's user, else the image's.
func (b *builder) user() (userInfo, error) {
	sc := b.security()
	var name, group string
	switch {
	case sc.GetRunAsUser() != nil:
		name = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
	case sc.GetRunAsUsername() != "":
		name = sc.GetRunAsUsername()
	default:
		name, group, _ = strings.Cut(b.image.User, ":")
	}
	if g := sc.GetRunAsGroup(); g != nil {
		if sc.GetRunAsUser() == nil && sc.GetRunAsUsername() == "" {
			return userInfo{}, invalid("runAsGroup is specified without runAsUser")
		}
		group = strconv.FormatInt(g.GetValue(), 10)
	}
	u := userInfo{home: "/"}
	passwd := b.table("etc/passwd", 7)
	entry := findEntry(passwd, name)
	switch {
	case entry != nil:
		uid, err1 := parseID(entry[2])
		gid, err2 := parseID(entry[3])
		if err1 != nil || err2 != nil {
			return u, invalid("the image's /etc/passwd has a bad entry for %q", name)
		}
		u.uid, u.gid, u.home = uid, gid, entry[5]
		name = entry[0]
	case name == "":
		if e := findEntry(passwd, "0"); e != nil {
			u.home, name = e[5], e[0]
		}
	default:
		uid, err := parseID(name)
		if err != nil {
			return u, invalid("unable to find user %s: no matching entries in passwd file", name)
		}
		u.uid, name = uid, ""
	}
	groups := b.table("etc/group", 4)
	if group != "" {
		if e := findEntry(groups, group); e != nil {
			group = e[2]
		}
		gid, err := parseID(group)
		if err != nil {
			return u, invalid("unable to find group %s: no matching entries in group file", group)
		}
		u.gid = gid
	}
	if b.r.level != shim.LevelNamespaces {
		return b.onlyUser(u), nil
	}
	add := func(g uint32) {
		if !slices.Contains(u.groups, g) {
			u.groups = append(u.groups, g)
		}
	}
	add(u.gid)
	if name != "" && sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		for _, e := range groups {
			if slices.Contains(strings.Split(e[3], ","), name) {
				if gid, err := parseID(e[2]); err == nil {
					add(gid)
				}
			}
		}
	}
	for _, g := range sc.GetSupplementalGroups() {
		add(uint32(g))
	}
	return u, nil
}

// onlyUser is what is left of a user where there is but one: in a user namespace the id is the one asked for,
// without one it is the runtime's, unless that is root.
func (b *builder) onlyUser(u userInfo) userInfo {
	if len(b.security().GetSupplementalGroups()) > 0 {
		b.r.opts.Logger.Info("supplemental groups are left out", "container", b.id, "isolation", string(b.r.level))
	}
	if b.r.level == shim.LevelNone && os.Geteuid() != 0 {
		u.uid, u.gid = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return u
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err
}

// table reads a file of colon-separated fields of the image.
func (b *builder) table(path string, fields int) [][]string {
	root, err := os.OpenRoot(b.chain)
	if err != nil {
		return nil
	}
	defer root.Close()
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	var rows [][]string
	for sc := bufio.NewScanner(io.LimitReader(f, 4<<20)); sc.Scan(); {
		if row := strings.Split(strings.TrimSpace(sc.Text()), ":"); len(row) >= fields {
			rows = append(rows, row)
		}
	}
	return rows
}

// findEntry looks for a name, then for an id.
func findEntry(rows [][]string, key string) []string {
	if key == "" {
		return nil
	}
	for _, col := range []int{0, 2} {
		for _, row := range rows {
			if row[col] == key {
				return row
			}
		}
	}
	return nil
}
