// Package env makes a container's environment and command line from its spec: variables from values, fields, resources, config maps
// and secrets, the variables of the namespace's Services, and the expansion of $(NAME).
package env
