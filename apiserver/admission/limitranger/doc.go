// Package limitranger is the admission plugin LimitRanger: the LimitRanges of a namespace give containers default requests and limits, and bound
// those of containers, pods and claims.
package limitranger
