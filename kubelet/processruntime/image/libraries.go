package image

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// libraries returns what a dynamically linked binary needs to start, by path: its interpreter and shared libraries, as this machine has them. It
// is empty for a static binary and for one that is no ELF file. (Go links programs dynamically where it finds a C compiler.)
func libraries(file string) (map[string][]byte, error) {
	out := map[string][]byte{}
	interp, needed, err := needs(file)
	if err != nil || interp == "" {
		return nil, err
	}
	if out[interp], err = os.ReadFile(interp); err != nil {
		return nil, fmt.Errorf("interpreter of %s: %w", file, err)
	}
	for len(needed) > 0 {
		name := needed[0]
		needed = needed[1:]
		at, err := locate(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if _, have := out[at]; have {
			continue
		}
		if out[at], err = os.ReadFile(at); err != nil {
			return nil, err
		}
		_, more, err := needs(at)
		if err != nil {
			return nil, err
		}
		needed = append(needed, more...)
	}
	return out, nil
}

func needs(file string) (interp string, libs []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", nil, nil // a script, or a binary of another system
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return "", nil, fmt.Errorf("%s: interpreter: %w", file, err)
			}
			interp = strings.TrimRight(string(b), "\x00")
		}
	}
	libs, err = f.ImportedLibraries()
	if err != nil {
		return "", nil, fmt.Errorf("%s: libraries: %w", file, err)
	}
	return interp, libs, nil
}

// locate finds a library where the dynamic linker looks without its cache.
func locate(name string) (string, error) {
	dirs := []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
	for _, pattern := range []string{"/lib/*-linux-*", "/usr/lib/*-linux-*"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		dirs = append(more, dirs...)
	}
	for _, d := range dirs {
		at := filepath.Join(d, name)
		if st, err := os.Stat(at); err == nil && st.Mode().IsRegular() {
			return at, nil
		}
	}
	return "", fmt.Errorf("shared library %s not found; build with CGO_ENABLED=0", name)
}
