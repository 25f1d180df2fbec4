// Package image makes OCI images of programs at hand: of one binary, with a few files beside it. What it makes can be imported
// into a processruntime, pushed to a registry or written as a layout, like any image of go-containerregistry.
//
//	img, err := image.FromBinary("/usr/local/bin/hello", image.Options{Args: []string{"serve"}})
//	…
//	id, err := runtime.ImportImage(ctx, img, "localhost/hello:1")
//
// The binary should be linked statically: nothing else is in the image.
package image
