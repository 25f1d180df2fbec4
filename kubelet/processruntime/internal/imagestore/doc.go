// Package imagestore keeps OCI images on disk: their configurations by digest, names pointing at them, and their files unpacked
// once per chain of layers. A chain shares the files of the chain it extends by hard links, so a base image is
// on disk once; containers see a chain only through an overlay or as a copy, never for writing.
package imagestore
