package apiserver

import (
	"runtime"

	"k8s.io/apimachinery/pkg/version"
)

// Version is the version of Kubernetes whose API is served, as /version tells it.
const Version = "v1.37.2+keelson"

func versionInfo() version.Info {
	return version.Info{
		Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1", MinCompatibilityMinor: "36", GitVersion: Version, GitTreeState: "clean", BuildDate: "1970-01-01T00:00:00Z",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}
